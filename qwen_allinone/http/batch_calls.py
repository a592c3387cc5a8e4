"""A line of a batch is asked of this app as any request is: through its hooks, routes and errors, without a network."""

from __future__ import annotations

import io
import json
import sys
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from flask import Flask

# Where the environ of a line's request has its LineCall. No client can set it: what headers say is under HTTP_*.
LINE = "qwen_allinone.batch_line"


@dataclass(frozen=True)
class LineCall:
    """Whose line it is, and which: equal where it is asked again. In the environ of its request."""

    owner: str | None
    key: str


@dataclass(frozen=True)
class LineAnswer:
    """What came back. `code` is that of an error's body."""

    status: int
    body: Any

    @property
    def is_good(self) -> bool:
        return 200 <= self.status < 300

    @property
    def code(self) -> str | None:
        """The error's code, under /v1 and elsewhere."""
        body = self.body if isinstance(self.body, dict) else {}
        error = body.get("error")
        found = error.get("code") if isinstance(error, dict) else body.get("code")
        return found if isinstance(found, str) else None


def call(app: Flask, line: LineCall, path: str, body: object, request_id: str) -> LineAnswer:
    """Ask `app` with a POST, as a client of it would be answered. Raises what a WSGI app may."""
    content = json.dumps(body, ensure_ascii=False).encode()
    told: list[str] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> Any:
        told[:] = [status]

    parts: Any = app.wsgi_app(_environ(line, path, content, request_id), start_response)
    with closing(parts) if hasattr(parts, "close") else nullcontext():
        answer = b"".join(parts)
    return LineAnswer(int(told[0].split()[0]), _parsed(answer))


def _environ(line: LineCall, path: str, content: bytes, request_id: str) -> dict[str, Any]:
    return {
        LINE: line,
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote(path).encode().decode("latin-1"),
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(content)),
        "HTTP_X_REQUEST_ID": request_id,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(content),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }


def _parsed(answer: bytes) -> Any:
    try:
        return json.loads(answer)
    except ValueError:
        return answer.decode("utf-8", "replace")
