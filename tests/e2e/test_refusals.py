"""What Gunicorn refuses before the app sees it is answered in the contract's shape."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.conftest import Service


def refused(service: Service, head: bytes) -> tuple[int, dict[str, str], Any]:
    """Status, headers and body of the answer to these bytes."""
    raw = service.raw(head)
    first, _, body = raw.partition(b"\r\n\r\n")
    status, *lines = first.decode("ascii").split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    assert len(body) == int(headers["Content-Length"])
    return int(status.split()[1]), headers, json.loads(body)


BAD = {
    "an underscore": (b"GET %s HTTP/1.1\r\nHost: localhost\r\nX_Request_Id: b\r\n\r\n", 400, "bad_request"),
    "a blank in a name": (b"GET %s HTTP/1.1\r\nHost: localhost\r\nX Y: b\r\n\r\n", 400, "bad_request"),
    "two lengths": (b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "bad_request"),
    "a long header": (b"GET %s HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * 9000 + b"\r\n\r\n", 431, "headers_too_large"),
    "many headers": (b"GET %s HTTP/1.1\r\nHost: localhost\r\n" + b"X-A: b\r\n" * 60 + b"\r\n", 431, "headers_too_large"),
    "an unknown coding": (b"POST %s HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: foo\r\n\r\n", 501, "not_implemented"),
}  # fmt: skip


@pytest.mark.parametrize("path", [b"/chat", b"/v1/tasks/sentiment"])
@pytest.mark.parametrize(("head", "status", "code"), BAD.values(), ids=list(BAD))
def test_a_head_that_cannot_be_taken_is_answered_in_json(
    service: Service, path: bytes, head: bytes, status: int, code: str
) -> None:
    answered, headers, body = refused(service, head % path)
    error = body["error"] if path.startswith(b"/v1") else body
    assert (answered, error["code"]) == (status, code)
    assert headers["Content-Type"] == "application/json; charset=utf-8"
    assert headers["Connection"] == "close" and headers["X-Request-Id"]


def test_the_name_of_a_refused_header_is_told(service: Service) -> None:
    _, _, body = refused(service, b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX_Request_Id: secret\r\n\r\n")
    assert "X_REQUEST_ID" in body["error"].upper() and "secret" not in body["error"]


def test_a_request_line_that_is_none_is_answered_in_json(service: Service) -> None:
    for line in (b"NONSENSE\r\n\r\n", b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"):
        status, _, body = refused(service, line)
        assert status in (400, 414) and set(body) == {"error", "code"}


def test_it_is_told_in_english_where_the_headers_that_could_be_read_prefer_that(service: Service) -> None:
    head = b"POST /chat HTTP/1.1\r\nHost: localhost\r\nAccept-Language: en\r\nTransfer-Encoding: foo\r\n\r\n"
    assert refused(service, head)[2]["error"] == "this Transfer-Encoding is not supported"
