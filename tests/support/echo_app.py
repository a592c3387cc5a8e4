"""A WSGI app that says what reached it, to stand behind a proxy in the service's place.

Every request becomes a line of JSON in the file ECHO_LOG names: method, path, headers, bytes of the body. The answer is
that line. `POST /chat` with `"stream"` in its body is answered by text/event-stream, a piece every half second;
`GET /slow` after a second; `POST /die` not at all: the worker kills itself.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterable, Iterator
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

from qwen_allinone.serving.refusals import RefusesInJson

PIECES = 6
PAUSE_S = 0.5


class EchoWorker(RefusesInJson, ThreadWorker):
    """Refuses as the service's worker does, and needs no engine."""


def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    body = environ["wsgi.input"].read()
    seen = {
        "method": environ["REQUEST_METHOD"],
        "path": environ["PATH_INFO"],
        "scheme": environ["wsgi.url_scheme"],
        "script": environ["SCRIPT_NAME"],
        "headers": {name[5:]: value for name, value in environ.items() if name.startswith("HTTP_")},
        "bytes": len(body),
        "pid": os.getpid(),
    }
    note(seen)
    if seen["path"] == "/die":
        os.kill(os.getpid(), signal.SIGKILL)
    if seen["path"] == "/slow":
        time.sleep(1)
    if seen["path"] == "/chat" and b'"stream"' in body:
        start_response("200 OK", [("Content-Type", "text/event-stream"), ("Cache-Control", "no-cache")])
        return stream(failing=b'"fail"' in body)
    answer = json.dumps(seen).encode()
    request_id = environ.get("HTTP_X_REQUEST_ID", "")
    headers = [("Content-Type", "application/json; charset=utf-8"), ("Content-Length", str(len(answer)))]
    start_response("200 OK", [*headers, ("X-Request-Id", request_id), ("X-Content-Type-Options", "nosniff")])
    return [answer]


def stream(failing: bool) -> Iterator[bytes]:
    """Pieces with pauses; with `failing` the worker dies after the second. Notes when nobody listens any more."""
    try:
        for number in range(PIECES):
            if failing and number == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            yield b'data: {"piece": %d}\n\n' % number
            time.sleep(PAUSE_S)
        yield b"data: [DONE]\n\n"
    except GeneratorExit:
        note({"left": True})
        raise


def note(what: dict[str, Any]) -> None:
    with open(os.environ["ECHO_LOG"], "a", encoding="utf-8") as log:
        log.write(json.dumps(what) + "\n")
