"""The real app, with a fault planted in it that a scenario must find: the value of FAULT_PLANT, or none if that is empty."""

from __future__ import annotations

import atexit
import itertools
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
from qwen_allinone.engine import Engine, scheduler, slots
from qwen_allinone.engine.admission import Admission
from qwen_allinone.engine.slots import SlotTable
from qwen_allinone.http import body
from qwen_allinone.http.disconnects import Disconnects
from qwen_allinone.http.openai import ChatCompletionRequest
from qwen_allinone.service import unwatched
from qwen_allinone.service.detokenizer import TextPieces
from qwen_allinone.serving.worker import EngineWorker
from qwen_allinone.state import SqliteStore

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


def _oldest_first(app: Any) -> None:
    """A step's prompts are those of the oldest requests, and their caller may take all slots and memory."""

    def shared_out(prompts: list[Any], budget: int, most: int) -> list[Any]:
        shares = []
        for count, running in sorted(prompts, key=lambda item: item[1].ticket.rank):
            taken = min(count, budget)
            budget -= taken
            shares += [(taken, running)] if taken else []
        return shares

    scheduler._shared_out = shared_out
    SlotTable.leaves_room = lambda self, caller, most_tokens, others=0: True  # type: ignore[method-assign]


def _no_shares(app: Any) -> None:
    """Whoever comes first has the places."""
    Admission._has_enough = lambda self, caller: False  # type: ignore[method-assign]


def _reads_all(app: Any) -> None:
    """Bodies are parsed and complained of, whatever they hold."""
    body._refuse_costly = lambda raw: None
    body._MOST_KEYS = 10**9
    unlimited = ChatCompletionRequest.model_fields["modalities"]
    unlimited.metadata.clear()
    ChatCompletionRequest.model_rebuild(force=True)


def _slots_for_all(app: Any) -> None:
    """What one caller leaves in a slot another has the use of."""
    slots._shared = lambda slot, tokens, caller, adapter: slots.common_prefix(slot.tokens, tokens)


def _one_share(app: Any) -> None:
    """All owners' conversations count as one's."""

    def is_full(self: SqliteStore, db: Any, owner: str | None) -> bool:
        (used,) = db.execute("SELECT coalesce(sum(bytes), 0) FROM owners").fetchone()
        return int(used) >= self._owner_mb * 1_000_000

    SqliteStore._is_full = is_full  # type: ignore[method-assign]


def _forgetful(app: Any) -> None:
    """Every twentieth turn is answered and not kept."""
    append, numbers = SqliteStore.append, itertools.count(1)

    def forget(self: SqliteStore, id: str, turn: Any, number: int, lease: Any) -> None:
        if next(numbers) % 20:
            append(self, id, turn, number, lease)

    SqliteStore.append = forget  # type: ignore[method-assign]


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
    "oldest first": _oldest_first,
    "no shares": _no_shares,
    "reads all": _reads_all,
    "slots for all": _slots_for_all,
    "one share": _one_share,
    "forgetful": _forgetful,
}

app = build_app()
if plant := PLANTS.get(os.environ.get("FAULT_PLANT", "")):
    plant(app)
