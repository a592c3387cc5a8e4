"""An HTTP server on loopback that says what a test wrote, and small talk with it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from typer.testing import CliRunner

from benchmarks.client import EVENT_STREAM, Answer, Client, Target

JSON = ("Content-Type", "application/json")
EVENTS = ("Content-Type", EVENT_STREAM)

Said = tuple[str, list[tuple[str, str]], Iterable[bytes]]  # status line, headers, body
Script = Callable[[str, str], Said]  # (path, text) -> what the server says


@dataclass
class Loopback:
    """A server that says what the test wrote, and what it saw."""

    script: Script
    url: str = ""
    connections: int = 0
    asked: list[tuple[str, str, str]] = field(default_factory=list)  # path, text, Accept
    under_way: int = 0
    most_under_way: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def texts(self) -> list[str]:
        return [text for _, text, _ in self.asked]

    def answer(self, path: str, text: str, accept: str) -> Said:
        with self.lock:
            self.asked.append((path, text, accept))
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        said = self.script(path, text)
        with self.lock:
            self.under_way -= 1
        return said


@contextmanager
def loopback(script: Script) -> Iterator[Loopback]:
    seen = Loopback(script)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # keeps connections
        disable_nagle_algorithm = True

        def setup(self) -> None:
            seen.connections += 1
            super().setup()

        def do_POST(self) -> None:
            text = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"]
            status, headers, body = seen.answer(self.path, text, self.headers["Accept"])
            self.send_response(int(status[:3]), status[4:])
            for name, value in headers:
                self.send_header(name, value)
            if "Content-Length" not in dict(headers):
                self.send_header("Connection", "close")
            self.end_headers()
            for part in body:
                self.wfile.write(part)

        def log_message(self, *_: object) -> None:
            """Not on the test's stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    seen.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ok(body: dict[str, Any] | None = None) -> Said:
    data = json.dumps({"sentiment": "正面", "response": "好"} if body is None else body).encode()
    return "200 OK", [JSON, ("Content-Length", str(len(data)))], [data]


def refused(status: str, **headers: str) -> Said:
    data = b'{"error": "busy"}'
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return status, [JSON, ("Content-Length", str(len(data))), *named], [data]


def events(*lines: str) -> Said:
    return "200 OK", [EVENTS], [f"{line}\n".encode() for line in lines]


def ask(target: Target, text: str = "好") -> Answer:
    with Client(target) as one:
        return one.ask({"text": text})


def bodies(count: int) -> list[dict[str, str]]:
    return [{"text": str(number)} for number in range(count)]


def run(main: Callable[..., None], *arguments: object) -> Any:
    app = typer.Typer()
    app.command()(main)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def shown(table: Table) -> str:
    console = Console(width=300)
    with console.capture() as captured:
        console.print(table)
    return captured.get()
