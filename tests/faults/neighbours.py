"""Somebody floods, somebody sends texts of a million characters: another caller does not feel it much."""

from __future__ import annotations

import json
import time

from qwen_allinone.access import keys
from tests.e2e.conftest import Service
from tests.faults.load import Load, Plan, counts
from tests.faults.scenario import Bench, Scenario, milliseconds, percentile

QUOTA = 600  # requests a minute for each key
FLOOD = 60.0  # requests a second
HUGE = ("好" * 150_000, "a" * 1_000_000)
HUGE_RATE = 5.0
TIMES = 2.0
REFUSED_S = 1.0


def run(bench: Bench) -> None:
    file = bench.home / "keys"
    honest, flooding, careless = (keys.add(file, name) for name in ("honest", "flooding", "careless"))
    service = bench.start(
        QAIO_WORKERS="2",
        QAIO_API_KEYS_FILE=str(file),
        QAIO_RATE_REQUESTS=str(QUOTA),
        QAIO_PROMPTS=str(bench.short_prompts(24)),
    )
    chats = bench.size(150, 30)
    _p95(service, honest, 10)  # warm

    def beside(plan: Plan) -> tuple[float, float, Load]:
        alone = _p95(service, honest, chats)
        load = Load(plan)
        time.sleep(1.0)
        return alone, _p95(service, honest, chats), load

    bench.say("a key floods")
    # Its share of the minute is used up at once, so that what is measured is the cost of saying no.
    used_up = Load(Plan(service.port, 20, 600.0, path="/v1/tasks", obey=False, key=flooding))
    time.sleep(bench.size(15.0, 15.0))
    used_up.end()
    alone, meanwhile, load = beside(Plan(service.port, 20, 600.0, rate=FLOOD, obey=False, key=flooding))
    outcomes = load.end()
    refused = sum(outcome.end == "429" for outcome in outcomes)
    bench.check("a key that floods gets 429", counts(outcomes), refused >= 0.9 * len(outcomes) > 0)
    _compare(bench, f"{FLOOD:g} refused requests a second", alone, meanwhile)

    bench.say("texts of up to a million characters")
    alone, meanwhile, load = beside(Plan(service.port, 4, 600.0, rate=HUGE_RATE, texts=HUGE, obey=False, key=careless))
    outcomes = load.end()
    slowest = max((outcome.took for outcome in outcomes), default=0.0)
    bench.check(
        "a text of up to a million characters is a 400 within 1 s",
        f"{counts(outcomes)}; worst {milliseconds(slowest)}",
        bool(outcomes) and all(outcome.end == "400" for outcome in outcomes) and slowest < REFUSED_S,
    )
    _compare(bench, f"{HUGE_RATE:g} such texts a second", alone, meanwhile)


def _p95(service: Service, key: str, chats: int) -> float:
    """Of so many chats one after the other."""
    body = json.dumps({"text": "今天很开心"}).encode()
    took = []
    for _ in range(chats):
        began = time.monotonic()
        reply = service.ask("POST", "/chat", body, Content_Type="application/json", X_API_Key=key)
        assert reply.status == 200, reply.data
        took.append(time.monotonic() - began)
    return percentile(took, 95)


def _compare(bench: Bench, beside: str, alone: float, meanwhile: float) -> None:
    times = meanwhile / alone
    measured = f"{times:.1f} x: {milliseconds(meanwhile)}, alone {milliseconds(alone)}"
    bench.check(f"another key's p95 beside {beside}: at most {TIMES:g} x", measured, times <= TIMES)


SCENARIO = Scenario("neighbours", run, plant="greedy refusals", finds="another key's p95")
