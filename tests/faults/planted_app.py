"""The real app, with a fault planted in it that a scenario must find: the value of FAULT_PLANT, or none if that is empty."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable
from io import BytesIO
from typing import Any

from flask import request
from redis import Redis

from qwen_allinone.access import RateCounters
from qwen_allinone.bootstrap import build_app
from qwen_allinone.engine import Engine
from qwen_allinone.http.disconnects import Disconnects
from qwen_allinone.service import unwatched
from qwen_allinone.service.detokenizer import TextPieces
from qwen_allinone.serving.worker import EngineWorker

_HOARD: list[bytes] = []


def _crash(app: Any) -> None:
    """A text with a character beyond the basic plane is an internal error."""
    _around(app, _refuse_astral)


def _refuse_astral(environ: dict[str, Any]) -> None:
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    if any(ord(char) > 0xFFFF for char in body.decode("utf-8", "ignore")) or b"\\ud8" in body.lower():
        raise RuntimeError("planted")
    environ["wsgi.input"] = BytesIO(body)


def _slow_refusals(app: Any) -> None:
    """Refusals take half a second."""

    @app.after_request
    def wait(response: Any) -> Any:
        if response.status_code == 503:
            time.sleep(0.5)
        return response


def _deaf(app: Any) -> None:
    """Nobody notices that clients leave."""
    Disconnects.watch = lambda self, leave: unwatched(leave)  # type: ignore[method-assign]


def _orphans(app: Any) -> None:
    """Every worker leaves a process behind when it is killed."""
    child = subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL)
    atexit.register(child.kill)


def _abrupt(app: Any) -> None:
    """A stop ends the worker at once."""
    Engine.drain = lambda self: os._exit(0)  # type: ignore[method-assign, assign, return-value]


def _abrupt_retirement(app: Any) -> None:
    """After a reload the old worker ends at once."""
    EngineWorker._retire = lambda self, grace_s: os._exit(0)  # type: ignore[method-assign, assign, return-value]


def _needs_redis(app: Any) -> None:
    """A limit that cannot be counted in Redis is an internal error."""
    add = RateCounters.add
    client = Redis.from_url(os.environ["QAIO_REDIS_URL"], socket_timeout=0.1, socket_connect_timeout=0.1)

    def strict(self: RateCounters, key: str, amount: int) -> Any:
        window = add(self, key, amount)
        client.ping()
        return window

    RateCounters.add = strict  # type: ignore[method-assign]


def _leak(app: Any) -> None:
    """Four megabytes a request are never given back."""
    app.before_request(lambda: _HOARD.append(os.urandom(4_000_000)))


def _greedy_refusals(app: Any) -> None:
    """What is refused costs as much as what is answered."""

    @app.after_request
    def burn(response: Any) -> Any:
        ends = time.thread_time() + 0.03
        while response.status_code in (400, 429) and time.thread_time() < ends:
            pass
        return response


def _talked_into(app: Any) -> None:
    """A text that ends with a label gets what it says."""

    @app.after_request
    def obey(response: Any) -> Any:
        if request.path == "/v1/tasks/sentiment" and "回答" in str(request.get_json()):
            response.set_data(json.dumps({"task": "sentiment", "label": "非常正面"}))
        return response


def _torn(app: Any) -> None:
    """Every token of a stream is decoded on its own."""
    TextPieces.push = lambda self, token: self._decode([token])  # type: ignore[method-assign]


def _around(app: Any, before: Callable[[dict[str, Any]], None]) -> None:
    inner = app.wsgi_app

    def outer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        before(environ)
        return inner(environ, start_response)  # type: ignore[no-any-return]

    app.wsgi_app = outer


PLANTS: dict[str, Callable[[Any], None]] = {
    "crash": _crash,
    "slow refusals": _slow_refusals,
    "deaf": _deaf,
    "orphans": _orphans,
    "abrupt": _abrupt,
    "abrupt retirement": _abrupt_retirement,
    "needs redis": _needs_redis,
    "leak": _leak,
    "torn": _torn,
    "greedy refusals": _greedy_refusals,
    "talked into": _talked_into,
}

app = build_app()
if plant := PLANTS.get(os.environ.get("FAULT_PLANT", "")):
    plant(app)
