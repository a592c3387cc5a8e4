"""Bodies that are dear to read and good for nothing, in a loop: another caller hardly notices."""

from __future__ import annotations

from tests.faults.callers import CHAT, LABEL, compare, pair, under
from tests.faults.scenario import Bench, Scenario, milliseconds

MOST_TIMES = 1.5
REFUSED_S = 0.25
JUNK = {
    "104,000 unknown keys": (CHAT, b'{"text": "a"' + b"".join(b',"%x":1' % (number + 0x1000) for number in range(104_000)) + b"}"),
    "400,000 items": ("/v1/chat/completions", b'{"model": "demo", "modalities": [1' + b",1" * 400_000 + b"]}"),
    "an item of 500,000 brackets": (CHAT, b'{"text": ' + b"[" * 250_000 + b"]" * 250_000 + b"}"),
}  # fmt: skip


def run(bench: Bench) -> None:
    greedy, neighbour = pair(bench)
    labels = bench.size(200, 40)
    neighbour.times(LABEL, 20)
    for name, (path, body) in JUNK.items():
        bench.say(name)
        alone = neighbour.times(LABEL, labels)
        with under([lambda path=path, body=body: greedy.post(path, body)]) as attack:  # type: ignore[misc]
            beside = neighbour.times(LABEL, labels)
        slowest = max(took for _, took in attack.answers)
        bench.check(
            f"{name}: each a 400 within {milliseconds(REFUSED_S)}",
            f"{attack.counts}; worst {milliseconds(slowest)}",
            {status for status, _ in attack.answers} == {400} and slowest < REFUSED_S,
        )
        compare(bench, f"another's label beside a loop of {name}", alone, beside, 50, MOST_TIMES)


SCENARIO = Scenario("junk-keys", run, plant="reads all", finds="another's label")
