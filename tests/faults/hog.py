"""One key asks, within its limit, for more than there is; another is never turned away."""

from __future__ import annotations

from collections import Counter

from tests.faults.callers import CHAT, LABEL, TEXT, pair, under
from tests.faults.scenario import Bench, Scenario

SENTENCE = "这家店的服务很好，就是等的时间有点长，下次还会再来的"


def run(bench: Bench) -> None:
    greedy, neighbour = pair(bench, QAIO_SLOTS="4", QAIO_MAX_WAITING="16")
    texts = {"model": "demo", "input": [f"{number}{SENTENCE}" for number in range(256)]}
    asked = bench.size(100, 20)
    asks = {
        "24 chats": [lambda: greedy.post(CHAT, TEXT)] * 24,
        "24 calls of 256 texts": [lambda: greedy.post("/v1/classify", texts, X_Timeout_Ms="5000")] * 24,
    }
    for name, crowd in asks.items():
        bench.say(name)
        with under(crowd) as attack:
            ends = Counter(neighbour.post(LABEL, TEXT).status for _ in range(asked))
        bench.check(
            f"{name} of one key for 20 places: none of another's {asked} requests is refused",
            f"{dict(ends)}; of the one: {attack.counts}",
            ends == {200: asked} and any(status == 503 for status, _ in attack.answers),
        )


SCENARIO = Scenario("hog", run, plant="no shares", finds="none of another's")
