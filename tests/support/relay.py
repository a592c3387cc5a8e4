"""An HTTP server before a service: passes requests on, or answers as a test plants it; tells what it has seen."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECONDS = 60.0
_HOP = ("connection", "transfer-encoding", "keep-alive", "content-length", "host")


@dataclass(frozen=True)
class Planted:
    """An answer; with `status` 0 the connection ends without one. `pause_s` passes before it."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    pause_s: float = 0.0


@dataclass(frozen=True)
class Seen:
    """A request, and when it came (monotonic)."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float


class Relay:
    """`planted` by path is what is answered there, one after the other; a path without any goes to `service_port`.

    What comes from there is passed on as it comes, with `pause_s` behind each piece.
    """

    def __init__(self, service_port: int | None) -> None:
        self.service_port = service_port
        self.planted: dict[str, list[Planted]] = {}
        self.seen: list[Seen] = []
        self.most_at_once = 0
        self.port = 0
        self.pause_s = 0.0
        self._now = 0
        self._lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def plant(self, path: str, *answers: Planted) -> None:
        """The last of them is given to all that come after."""
        with self._lock:
            self.planted[path] = list(answers)

    def pass_on(self) -> None:
        """Plant nothing any more."""
        with self._lock:
            self.planted.clear()

    def enter(self, seen: Seen) -> Planted | None:
        with self._lock:
            self.seen.append(seen)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            answers = self.planted.get(seen.path)
            if not answers:
                return None
            return answers.pop(0) if len(answers) > 1 else answers[0]

    def leave(self) -> None:
        with self._lock:
            self._now -= 1


class _Handler(BaseHTTPRequestHandler):
    """HTTP/1.0: an answer ends where its connection does, so streams need no framing of their own."""

    relay: Relay

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        planted = self.relay.enter(Seen(self.command, self.path, dict(self.headers), body, time.monotonic()))
        try:
            if planted is None:
                self._pass_on(body)
            else:
                time.sleep(planted.pause_s)
                if planted.status:
                    self._send(planted.status, planted.headers)
                    self.wfile.write(planted.body)
        except ConnectionError:
            pass  # whoever asked has left
        finally:
            self.relay.leave()

    def _pass_on(self, body: bytes) -> None:
        assert self.relay.service_port is not None, f"nothing planted for {self.path}"
        behind = http.client.HTTPConnection("127.0.0.1", self.relay.service_port, timeout=SECONDS)
        try:
            kept = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
            behind.request(self.command, self.path, body or None, {**kept, "Connection": "close"})
            answer = behind.getresponse()
            self._send(answer.status, dict(answer.getheaders()))
            while block := answer.read1(65536):
                self.wfile.write(block)
                time.sleep(self.relay.pause_s)
        finally:
            behind.close()

    def _send(self, status: int, headers: dict[str, str]) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in _HOP:
                self.send_header(name, value)
        self.end_headers()

    do_GET = do_POST = do_DELETE = _any

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def relay(service_port: int | None = None) -> Iterator[Relay]:
    """One that runs on a port of its own; without a service it only answers what is planted."""
    made = Relay(service_port)
    handler = type("Handler", (_Handler,), {"relay": made})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        made.port = server.server_port
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        serving.start()
        try:
            yield made
        finally:
            server.shutdown()
            serving.join()
