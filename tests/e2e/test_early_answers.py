"""An answer given before the body has come reaches clients that send all of it first, as most do."""

from __future__ import annotations

import json
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from qwen_allinone.access import keys
from tests.e2e.conftest import Service, services
from tests.support.nginx import Proxy, proxy

MB = 1_000_000
SIZES = (1_200_000, 3 * MB, 9 * MB)
TRIES = 6
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def guarded(demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, str]]:
    """A service that asks for keys, and one that holds."""
    home = tmp_path_factory.mktemp("guarded")
    key = keys.add(home / "keys", "alice")
    limits = {"QAIO_RATE_REQUESTS": "1000", "QAIO_MAX_BODY_BYTES": str(MB)}
    with services(home) as start:
        yield start(QAIO_API_KEYS_FILE=str(home / "keys"), **limits), key


@pytest.fixture(scope="module")
def guarded_front(guarded: tuple[Service, str]) -> Iterator[Proxy]:
    generous = {"PROXY_REQUESTS_PER_S": "1000", "PROXY_BURST": "1000", "PROXY_CONNECTIONS": "100"}
    with proxy([guarded[0].port], **generous) as running:
        yield running


def by_urllib(url: str, body: bytes, headers: dict[str, str], tls: ssl.SSLContext | None = None) -> int:
    request = urllib.request.Request(url, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=60, context=tls) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            assert json.loads(error.read())
            return error.code


@pytest.mark.parametrize("size", SIZES)
def test_a_body_that_is_too_large_is_told_so_to_urllib_and_httpx(guarded: tuple[Service, str], size: int) -> None:
    service, key = guarded
    url, headers = f"http://127.0.0.1:{service.port}/chat", JSON | {"X-API-Key": key}
    assert [by_urllib(url, b" " * size, headers) for _ in range(TRIES)] == [413] * TRIES
    with httpx.Client(trust_env=False, timeout=60) as client:  # which keeps its connections open
        assert [client.post(url, content=b" " * size, headers=headers).status_code for _ in range(TRIES)] == [
            413
        ] * TRIES


@pytest.mark.parametrize(("headers", "status"), [(JSON, 401), ({"Content-Type": "text/plain"}, 415)])
def test_other_early_answers_arrive_too(guarded: tuple[Service, str], headers: dict[str, str], status: int) -> None:
    service, key = guarded
    headers = headers if status == 401 else headers | {"X-API-Key": key}
    url = f"http://127.0.0.1:{service.port}/chat"
    assert [by_urllib(url, b" " * 9 * MB, headers) for _ in range(TRIES)] == [status] * TRIES


def test_a_refusal_for_a_used_up_limit_arrives(demo_checkpoint: Path, tmp_path: Path) -> None:
    with services(tmp_path) as start:
        service = start(QAIO_RATE_REQUESTS="1")
        url = f"http://127.0.0.1:{service.port}/chat"
        assert by_urllib(url, b" " * 9 * MB, JSON) == 413
        assert [by_urllib(url, b" " * 9 * MB, JSON) for _ in range(TRIES)] == [429] * TRIES


@pytest.mark.parametrize(("size", "status"), [(900_000, 401), (3 * MB, 413), (9 * MB, 413)])
def test_behind_nginx_an_early_answer_arrives(guarded_front: Proxy, size: int, status: int) -> None:
    url = f"https://localhost:{guarded_front.https_port}/chat"
    answers = [by_urllib(url, b" " * size, JSON, guarded_front.tls()) for _ in range(TRIES)]
    assert answers == [status] * TRIES


def test_a_client_that_never_stops_sending_is_cut_off(guarded: tuple[Service, str]) -> None:
    service, _ = guarded
    head = (
        b"POST /chat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 999999999\r\n\r\n"
    )
    sent = 0
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as connection:
        connection.sendall(head)
        with pytest.raises(ConnectionError):
            while True:
                sent += connection.send(b" " * 65_536)
    assert sent < 64 * MB
    assert service.ask("GET", "/livez").status == 200


def test_a_client_that_stops_sending_and_does_not_close_is_let_go(guarded: tuple[Service, str]) -> None:
    service, _ = guarded
    began = time.monotonic()
    head = b"POST /chat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 999999\r\n\r\n"
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as connection:
        connection.sendall(head + b" " * 100_000)
        assert b"401" in connection.recv(65_536)
        with pytest.raises(ConnectionError):
            while time.monotonic() < began + 25:
                time.sleep(1 if time.monotonic() - began > 12 else 14)  # silent, and only then
                connection.send(b" ")
    assert time.monotonic() - began < 25
