"""What nginx keeps away from Gunicorn and from other clients: smuggled requests, slow clients, lost upstreams, streams."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise

import pytest

from tests.e2e.conftest import Echo, StartEcho, free_port, until
from tests.support.echo_app import PAUSE_S, PIECES
from tests.support.nginx import Proxy, drain, proxy

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /outer HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def length(count: int) -> bytes:
    return b"Content-Length: %d\r\n" % count


REFUSED = {
    "a length and chunks": POST + length(5 + len(SMUGGLED)) + CHUNKED + b"\r\n0\r\n\r\n" + SMUGGLED,
    "chunks and a length": POST + CHUNKED + length(5 + len(SMUGGLED)) + b"\r\n0\r\n\r\n" + SMUGGLED,
    "two lengths": POST + length(0) + length(len(SMUGGLED)) + b"\r\n" + SMUGGLED,
    "two equal lengths": POST + length(2) * 2 + b"\r\n{}" + SMUGGLED,
    "a list of lengths": POST + b"Content-Length: 0, 43\r\n\r\n" + SMUGGLED,
    "a length with a sign": POST + b"Content-Length: +0\r\n\r\n" + SMUGGLED,
    "a negative length": POST + b"Content-Length: -1\r\n\r\n" + SMUGGLED,
    "a folded header": POST + b"X-A: 1\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "a folded length": POST + b"Content-Length:\r\n 43\r\n\r\n" + SMUGGLED,
    "a blank before the colon": POST + b"Content-Length : 43\r\n\r\n" + SMUGGLED,
    "chunked twice": POST + CHUNKED * 2 + b"\r\n0\r\n\r\n" + SMUGGLED,
    "chunked and identity": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "a transfer coding that is none": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "a chunk size that is none": POST + CHUNKED + b"\r\n0x0\r\n\r\n" + SMUGGLED,
    "a chunk size beyond 64 bits": POST + CHUNKED + b"\r\n10000000000000000\r\n\r\n" + SMUGGLED,
    "a bare CR in a header": POST + b"X-A: 1\rTransfer-Encoding: chunked\r\n\x00\r\n\r\n" + SMUGGLED,
    "NUL in a header": POST + b"X-A: \x00\r\n\r\n" + SMUGGLED,
    "no Host": b"POST /outer HTTP/1.1\r\n" + length(0) + b"\r\n" + SMUGGLED,
    "two Hosts": POST + b"Host: other\r\n" + length(0) + b"\r\n" + SMUGGLED,
}


@pytest.mark.parametrize("request_bytes", list(REFUSED.values()), ids=list(REFUSED))
def test_an_ambiguous_request_is_a_400_and_what_follows_it_is_not_read(
    front: Proxy, echo: Echo, request_bytes: bytes
) -> None:
    before = len(echo.seen())
    received = front.raw(request_bytes)
    assert received.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 ")), received[:200]
    assert received.count(b"HTTP/1.") == 1
    assert [entry for entry in echo.seen()[before:] if entry["path"] == "/smuggled"] == []


BARE_LF = {
    "all of the head": b"POST /outer HTTP/1.1\nHost: localhost\nContent-Length: 43\nConnection: close\n\n" + SMUGGLED,
    "before a length": POST + b"X-A: 1\nContent-Length: 43\r\nConnection: close\r\n\r\n" + SMUGGLED,
    "before chunks": POST + b"Connection: close\r\nX-A: 1\nTransfer-Encoding: chunked\r\n\r\n2b\r\n"
    + SMUGGLED + b"\r\n0\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("request_bytes", list(BARE_LF.values()), ids=list(BARE_LF))
def test_bare_line_feeds_never_make_two_requests_of_one(front: Proxy, echo: Echo, request_bytes: bytes) -> None:
    """nginx may take LF for CRLF, as the standard allows; Gunicorn gets the head it writes, with one meaning."""
    before = len(echo.seen())
    received = front.raw(request_bytes)
    seen = echo.seen()[before:]
    if received.startswith(b"HTTP/1.1 400 "):
        assert seen == []
    else:
        assert [(entry["path"], entry["bytes"]) for entry in seen] == [("/outer", len(SMUGGLED))]
    assert received.count(b"HTTP/1.1 ") == 1


# ---- Slow clients ----


def test_slow_handshakes_heads_and_bodies_are_cut_off_and_an_honest_client_does_not_feel_them(
    front: Proxy, echo: Echo
) -> None:
    before = len(echo.seen("/dripping"))
    began = time.monotonic()
    with ExitStack() as held:
        slow: list[socket.socket] = [held.enter_context(front.connect(seconds=60)) for _ in range(100)]
        address = ("127.0.0.1", front.https_port)  # and some that do not even begin to speak TLS
        slow += [held.enter_context(socket.create_connection(address, timeout=60)) for _ in range(50)]
        for connection in slow[:50]:
            connection.sendall(b"GET /dripping HTTP/1.1\r\nHost: localhost\r\nX-A: ")
        for connection in slow[50:100]:
            connection.sendall(b"POST /dripping HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc")
        for number in range(4):  # a head that keeps coming is late all the same
            for connection in slow[:50]:
                connection.sendall(b"%d" % number)
            assert front.ask("POST", "/honest", b"{}").status == 200
            time.sleep(1)
        with ThreadPoolExecutor(len(slow)) as pool:
            answers = list(pool.map(drain, slow))
    assert time.monotonic() - began < 50, "they were not cut off after 10 s"
    assert {answer[:13] for answer in answers} <= {b"", b"HTTP/1.1 408 "}
    assert len(echo.seen("/dripping")) == before
    assert front.ask("POST", "/honest", b"{}").status == 200


def test_a_body_reaches_gunicorn_only_when_all_of_it_is_there(front: Proxy, echo: Echo) -> None:
    with front.connect() as connection:
        connection.sendall(
            b"POST /pieces HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 4\r\n\r\nab"
        )
        time.sleep(1)
        assert echo.seen("/pieces") == []
        connection.sendall(b"cd")
        assert drain(connection).startswith(b"HTTP/1.1 200 ")
    assert [entry["bytes"] for entry in echo.seen("/pieces")] == [4]


# ---- Upstreams ----


@pytest.mark.parametrize("path", ["/chat", "/v1/chat/completions", "/v1/tasks/sentiment", "/readyz"])
def test_without_an_upstream_the_answer_is_json_and_says_when_to_try_again(path: str) -> None:
    with proxy([free_port()]) as front:
        answer = front.ask("POST", path, b"{}")
    assert (answer.status, answer.header("Retry-After")) == (502, "5")
    error = json.loads(answer.data)
    assert (error["error"]["code"] if path.startswith("/v1") else error["code"]) == "bad_gateway"


def test_an_upstream_that_does_not_answer_is_a_json_504() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with proxy([silent.getsockname()[1]], PROXY_READ_TIMEOUT_S="1") as front:
            answer = front.ask("POST", "/chat", b"{}")
        assert (answer.status, json.loads(answer.data)["code"]) == (504, "gateway_timeout")
        assert answer.header("Retry-After") == "5"


def test_an_upstream_that_cannot_be_reached_is_passed_over_for_posts_too(echo: Echo) -> None:
    with proxy([free_port(), echo.service.port]) as front:
        answers = [front.ask("POST", "/passed-over", b"{}") for _ in range(10)]
    assert [answer.status for answer in answers] == [200] * 10
    assert len(echo.seen("/passed-over")) == 10


def test_a_post_that_was_sent_is_never_sent_again(start_echo: StartEcho) -> None:
    one, other = start_echo(), start_echo()
    ports = [one.service.port, other.service.port]
    with proxy(ports) as front:
        answer = front.ask("POST", "/die", b"{}")
    assert (answer.status, answer.header("Retry-After")) == (502, "5")
    assert len(one.seen("/die") + other.seen("/die")) == 1
    with proxy(ports, edit=("proxy_next_upstream error", "proxy_next_upstream non_idempotent error")) as careless:
        careless.ask("POST", "/die", b"{}")
    assert len(one.seen("/die") + other.seen("/die")) == 3, "this test would not see a POST that is sent twice"


# ---- Streams ----


def pieces(front: Proxy, path: str = "/chat") -> list[tuple[float, bytes]]:
    """When each piece of a stream came, and the piece."""
    connection = http.client.HTTPSConnection("localhost", front.https_port, timeout=60, context=front.tls())
    connection.request("POST", path, b'{"stream": true}')
    response = connection.getresponse()
    assert response.getheader("Content-Type") == "text/event-stream"
    came = []
    while line := response.readline():
        if line.strip():
            came.append((time.monotonic(), line.strip()))
    connection.close()
    return came


def spread(came: list[tuple[float, bytes]]) -> int:
    """How many pauses between pieces were pauses for the client as well."""
    return sum(later - earlier > PAUSE_S / 2 for (earlier, _), (later, _) in pairwise(came))


def test_pieces_of_a_stream_come_as_they_are_sent(front: Proxy, echo: Echo) -> None:
    came = pieces(front)
    assert [piece for _, piece in came] == [b'data: {"piece": %d}' % n for n in range(PIECES)] + [b"data: [DONE]"]
    assert spread(came) >= PIECES - 2
    with proxy([echo.service.port], edit=("proxy_buffering off", "proxy_buffering on")) as buffering:
        assert spread(pieces(buffering)) < PIECES - 2, "this test would not see a buffered stream"


def test_a_stream_that_breaks_off_does_not_look_ended(start_echo: StartEcho) -> None:
    with proxy([start_echo().service.port]) as front:
        connection = http.client.HTTPSConnection("localhost", front.https_port, timeout=60, context=front.tls())
        connection.request("POST", "/chat", b'{"stream": true, "fail": true}')
        response = connection.getresponse()
        assert response.status == 200
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError, ssl.SSLEOFError)):
            response.read()
        connection.close()


def test_a_client_that_leaves_a_stream_is_missed_by_the_service(start_echo: StartEcho) -> None:
    echo = start_echo()
    with proxy([echo.service.port]) as front:
        connection = http.client.HTTPSConnection("localhost", front.https_port, timeout=60, context=front.tls())
        connection.request("POST", "/chat", b'{"stream": true}')
        assert connection.getresponse().readline().startswith(b"data:")
        connection.sock.close()  # type: ignore[union-attr]
        connection.close()
        until(lambda: {"left": True} in echo.seen(), "the service notices", seconds=20)
