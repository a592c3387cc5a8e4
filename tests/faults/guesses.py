"""Somebody guesses what another has asked, and looks at token counts and at the clock: he learns nothing."""

from __future__ import annotations

import random
import time

from tests.faults.callers import Caller, pair
from tests.faults.scenario import Bench, Scenario

WORDS = [
    "研究所",
    "辞职",
    "青岛",
    "小店",
    "海鲜",
    "老板",
    "病历",
    "合同",
    "密码",
    "学校",
    "医生",
    "律师",
    "存款",
    "房子",
    "搬家",
    "女儿",
    "考试",
    "秘密",
    "计划",
    "生意",
]
LENGTH = 60  # words of a text: what a hit saves must be far above the clock's noise
# Right guesses that chance alone exceeds once in a hundred runs, of 200 and of 40.
MOST_RIGHT = {200: 117, 40: 28}


def run(bench: Bench) -> None:
    alice, bob = pair(bench, QAIO_SLOTS="1")
    drawn = random.Random(7)
    guesses = bench.size(200, 40)
    told = {"cached_tokens": 0.0, "time": 0.0}
    for number in range(guesses):
        bench.say(f"{number} of {guesses}")
        secret, decoy = _text(drawn), _text(drawn)
        seen = {}
        # Which is tried first is drawn too: a second request may be faster for reasons of its own.
        for guess in drawn.sample((secret, decoy), 2):
            _ask(alice, secret)
            seen[guess] = _ask(bob, guess)
        for figure, (right, wrong) in zip(told, zip(seen[secret], seen[decoy], strict=True), strict=True):
            told[figure] += 0.5 if right == wrong else right > wrong
    for figure, right in told.items():
        most = MOST_RIGHT[guesses]
        asked = (
            f"the right one of two guesses is told by {figure} in at most {most} of {guesses} (chance: {guesses // 2})"
        )
        bench.check(asked, f"{right:g} of {guesses}", right <= most)


def _text(drawn: random.Random) -> str:
    return "".join(drawn.choices(WORDS, k=LENGTH))


def _ask(caller: Caller, text: str) -> tuple[float, float]:
    """What the answer's figure says was there already, and how fast it came."""
    body = {"model": "demo", "messages": [{"role": "user", "content": text}], "max_tokens": 1, "temperature": 0}
    began = time.monotonic()
    reply = caller.post("/v1/chat/completions", body)
    took = time.monotonic() - began
    assert reply.status == 200, reply.data
    return float(reply.json["usage"]["prompt_tokens_details"]["cached_tokens"]), -took


SCENARIO = Scenario("guesses", run, plant="slots for all", finds="is told by")
