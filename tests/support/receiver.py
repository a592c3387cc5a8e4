"""A receiver of signed webhooks on loopback, as an operator's would be: it can be away, slow, or out of order."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

SECRET = b"0123456789abcdef0123456789abcdef"


@dataclass(frozen=True)
class Received:
    """A message that was taken. `signed`: its signature holds."""

    id: str
    attempt: int
    signed: bool
    body: Any


class Receiver:
    """Answers on one port, whenever it is up. `behave` is given a request's number, from 1, and returns the status to
    answer with; it may wait first. What is answered 2xx counts as taken."""

    def __init__(self, behave: Callable[[int], int] = lambda number: 204) -> None:
        self.behave = behave
        self.asked = 0
        self.taken: list[Received] = []
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None
        self.port = 0
        self.up()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def up(self) -> None:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver._take(self)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *_: object) -> None:  # senders that were killed
                pass

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def down(self) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _take(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        with self._lock:
            self.asked += 1
            number = self.asked
        status = self.behave(number)
        if 200 <= status < 300:
            headers = handler.headers
            received = Received(
                headers["webhook-id"],
                int(headers["webhook-attempt"]),
                _is_signed(headers["webhook-id"], headers["webhook-timestamp"], headers["webhook-signature"], body),
                json.loads(body),
            )
            with self._lock:
                self.taken.append(received)
        handler.send_response(status)
        if 300 <= status < 400:
            handler.send_header("Location", self.url)
        handler.send_header("Content-Length", "0")
        handler.end_headers()


def _is_signed(id: str, at: str, given: str, body: bytes) -> bool:
    """As the specification of Standard Webhooks has it, written anew."""
    expected = hmac.new(SECRET, id.encode() + b"." + at.encode() + b"." + body, hashlib.sha256).digest()
    return given == "v1," + base64.b64encode(expected).decode() and abs(time.time() - int(at)) < 300


def write_alerts(folder: Path, url: str, rules: str) -> Path:
    """A file with the channel `ops` that leads to `url`, and these rules."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ops.secret").write_text("whsec_" + base64.b64encode(SECRET).decode() + "\n")
    file = folder / "alerts.yaml"
    file.write_text(
        f"channels:\n  - {{name: ops, kind: webhook, url: '{url}', secret_file: ops.secret}}\nrules:\n{rules}", "utf-8"
    )
    return file
