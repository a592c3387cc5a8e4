"""A few large requests of one key, none of them wrong: another's labels and chats do not wait for their end."""

from __future__ import annotations

from collections.abc import Callable

from tests.e2e.conftest import Reply
from tests.faults.callers import CHAT, LABEL, compare, pair, under
from tests.faults.scenario import Bench, Scenario

PREDICATE = "这段话里有没有提到某种具体的困难和它的原因，" * 10
SENTENCE = "这家店的服务很好，就是等的时间有点长，下次还会再来的"
MOST_TIMES = 3.0


def run(bench: Bench) -> None:
    greedy, neighbour = pair(bench)
    questions = [{"type": "predicate", "instructions": f"{number}{PREDICATE}"} for number in range(400)]
    decisions = {"model": "demo", "input": "今天心情很差", "questions": questions}
    texts = {"model": "demo", "input": [f"{number}{SENTENCE}" for number in range(256)]}
    asks: dict[str, tuple[int, Callable[[], Reply]]] = {
        "4 x 400 predicates of 230 characters": (
            4,
            lambda: greedy.post("/v1/decisions", decisions, X_Timeout_Ms="10000"),
        ),
        "2 x 256 texts": (2, lambda: greedy.post("/v1/classify", texts)),
    }
    labels, chats = bench.size(120, 40), bench.size(30, 10)
    neighbour.times(LABEL, 20)
    neighbour.times(CHAT, 5)
    for name, (count, ask) in asks.items():
        bench.say(name)
        alone, talked = neighbour.times(LABEL, labels), neighbour.times(CHAT, chats)
        with under([ask] * count):
            beside, talking = neighbour.times(LABEL, labels), neighbour.times(CHAT, chats)
        # Before and after: what else the machine does changes meanwhile.
        alone, talked = alone + neighbour.times(LABEL, labels), talked + neighbour.times(CHAT, chats)
        compare(bench, f"another's label beside {name}", alone, beside, 95, MOST_TIMES)
        compare(bench, f"another's chat beside {name}", talked, talking, 95, MOST_TIMES)


SCENARIO = Scenario("long-prompts", run, plant="oldest first", finds="another's label")
