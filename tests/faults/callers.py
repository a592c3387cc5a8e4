"""Two callers with keys: one who takes all he can get, and his neighbour, whose waiting is measured alone and beside him."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from qwen_allinone.access import keys
from tests.e2e.conftest import Reply, Service
from tests.faults.scenario import Bench, milliseconds, percentile

LABEL, CHAT = "/v1/tasks/sentiment", "/chat"
TEXT = {"text": "今天很开心"}
# Until the greedy one's first requests are being computed.
_BEGUN_S = 1.0


@dataclass(frozen=True)
class Caller:
    """Somebody with a key."""

    service: Service
    key: str

    def post(self, path: str, body: object, **headers: str) -> Reply:
        """`body` as JSON; bytes are sent as they are."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.service.ask("POST", path, raw, Content_Type="application/json", X_API_Key=self.key, **headers)

    def times(self, path: str, count: int) -> list[float]:
        """How long so many short requests take, one after the other."""
        took = []
        for _ in range(count):
            began = time.monotonic()
            reply = self.post(path, TEXT)
            assert reply.status == 200, reply.data
            took.append(time.monotonic() - began)
        return took


def pair(bench: Bench, **settings: str) -> tuple[Caller, Caller]:
    """A service, the greedy one and the neighbour."""
    file = bench.home / "keys"
    greedy, neighbour = keys.add(file, "greedy"), keys.add(file, "neighbour")
    settings = {"QAIO_PROMPTS": str(bench.short_prompts(24))} | settings
    service = bench.start(QAIO_API_KEYS_FILE=str(file), **settings)
    return Caller(service, greedy), Caller(service, neighbour)


@dataclass
class Attack:
    """What the greedy one's requests came to: status and seconds of each."""

    answers: list[tuple[int, float]] = field(default_factory=list)

    @property
    def counts(self) -> str:
        found = Counter(status for status, _ in self.answers)
        return ", ".join(f"{status}: {count}" for status, count in found.most_common()) or "none answered yet"


@contextmanager
def under(asks: Sequence[Callable[[], Reply]]) -> Iterator[Attack]:
    """Each of `asks` is done again and again, all side by side, until the block ends; then the last are waited for."""
    attack, over = Attack(), threading.Event()

    def go_on(ask: Callable[[], Reply]) -> None:
        while not over.is_set():
            began = time.monotonic()
            attack.answers.append((ask().status, time.monotonic() - began))

    threads = [threading.Thread(target=go_on, args=(ask,), daemon=True) for ask in asks]
    for thread in threads:
        thread.start()
    time.sleep(_BEGUN_S)
    try:
        yield attack
    finally:
        over.set()
        for thread in threads:
            thread.join(120.0)


def compare(
    bench: Bench, what: str, alone: Sequence[float], beside: Sequence[float], percent: int, most: float
) -> None:
    """Check that `what` of a neighbour took at most `most` times as long as alone, at this percentile."""
    before, after = percentile(alone, percent), percentile(beside, percent)
    measured = f"{after / before:.1f} x: {milliseconds(after)}, alone {milliseconds(before)}"
    bench.check(f"{what}, p{percent}: at most {most:g} x alone", measured, after <= most * before)
