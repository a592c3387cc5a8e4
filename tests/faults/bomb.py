"""Decisions made to be dear: a megabyte of options that begin alike, and as much as is let through of that kind."""

from __future__ import annotations

import json
import time

from tests.faults.callers import LABEL, compare, pair, under
from tests.faults.process import MIB, resident_mib
from tests.faults.scenario import Bench, Scenario

PATH = "/v1/decisions"
DEADLINE_S = 3.0
LATE_S = 1.0  # for the answer to come after its deadline
MOST_MIB = 60.0
MOST_TIMES = 3.0
BEFORE = 30  # requests that warm everything up


def bomb(questions: int, choices: int, length: int) -> bytes:
    """Choices of `length` characters that differ in the first only, each a token or more."""
    rest = "".join(chr(0x4E00 + number) for number in range(length - 1))
    asked = [
        {
            "type": "choice",
            "instructions": f"第 {question} 问",
            "choices": [{"value": chr(0x5000 + choice) + rest} for choice in range(choices)],
        }
        for question in range(questions)
    ]
    return json.dumps({"model": "demo", "input": "x", "questions": asked}, ensure_ascii=False).encode()


def run(bench: Bench) -> None:
    greedy, neighbour = pair(bench)
    headers = {"X_Timeout_Ms": str(int(DEADLINE_S * 1000))}
    whole, allowed = bomb(3, 255, 430), bomb(8, 255, 90)
    neighbour.times(LABEL, BEFORE)
    for _ in range(2):
        greedy.post(PATH, bomb(1, 255, 90), **headers)
    alone = neighbour.times(LABEL, bench.size(100, 40))
    before = resident_mib(greedy.service.workers[0])
    took, ends = list[float](), list[int]()
    for body in (whole, allowed) * bench.size(4, 2):
        bench.say(f"{len(body) / MIB:.1f} MiB of choices")
        began = time.monotonic()
        ends.append(greedy.post(PATH, body, **headers).status)
        took.append(time.monotonic() - began)
    bench.check(
        f"{len(whole) / MIB:.1f} MiB of choices: a 400; what is let through: a 504 at its deadline of {DEADLINE_S:g} s",
        f"{ends[0]} after {took[0]:.1f} s; {ends[1]} after {max(took[1::2]):.1f} s",
        set(ends[::2]) == {400} and set(ends[1::2]) == {504} and max(took) < DEADLINE_S + LATE_S,
    )
    with under([lambda: greedy.post(PATH, whole, **headers)]):
        refused = neighbour.times(LABEL, bench.size(100, 40))
    with under([lambda: greedy.post(PATH, allowed, **headers)]):
        computed = neighbour.times(LABEL, bench.size(60, 30))
    grown = resident_mib(greedy.service.workers[0]) - before
    bench.check(f"memory grows by at most {MOST_MIB:g} MiB", f"{grown:.0f} MiB", grown <= MOST_MIB)
    compare(bench, "another's label beside a loop of those refused", alone, refused, 50, MOST_TIMES)
    compare(bench, "another's label beside those let through", alone, computed, 50, MOST_TIMES)


SCENARIO = Scenario("decisions-bomb", run, plant="leak", finds="memory grows")
