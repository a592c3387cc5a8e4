"""Redis killed, frozen and back while limits count in it: nobody gets an error for it, and limits go on."""

from __future__ import annotations

import time

import pytest

from tests.e2e.conftest import Service, until
from tests.faults.load import Load, Outcome, Plan, counts
from tests.faults.scenario import Bench, Scenario, milliseconds, percentile
from tests.support.redis_server import BINARY, WHY_NOT, RedisServer

LIMIT = 40
WORKERS = 2
REJOIN_S = 5.0
LEFT, JOINED = "this worker counts for itself", "workers count together"


def run(bench: Bench) -> None:
    if BINARY is None:
        pytest.skip(WHY_NOT)
    redis = RedisServer(bench.home)
    try:
        _run(bench, redis)
    finally:
        redis.end()


def _run(bench: Bench, redis: RedisServer) -> None:
    service = bench.start(
        QAIO_WORKERS=str(WORKERS),
        QAIO_RATE_REQUESTS=str(LIMIT),
        QAIO_RATE_TOKENS="1000000",
        QAIO_REDIS_URL=redis.url,
        QAIO_TRUSTED_PROXIES="127.0.0.1",
    )
    seconds = bench.size(20.0, 3.0)
    # Addresses of their own, so that the crowd is counted but not limited.
    load = Load(Plan(service.port, 100, 3600.0, rate=20.0, path="/v1/tasks/sentiment", callers=True, obey=False))
    phases = [("there", lambda: None), ("killed", redis.kill), ("back", redis.start)]
    phases += [("frozen", redis.freeze), ("thawed", redis.thaw)]
    began: list[float] = []
    passed: dict[str, tuple[int, int]] = {}
    rejoined: list[float] = []
    try:
        for number, (name, do) in enumerate(phases):
            bench.say(f"Redis is {name}")
            do()
            began.append(time.monotonic())
            if name in ("back", "thawed"):
                rejoined.append(until(lambda: _joined(service), "workers count together again", 30))
            passed[name] = greedy(service, f"192.0.2.{number + 1}")
            time.sleep(max(0.0, began[-1] + seconds - time.monotonic()))
        outcomes = load.end()
    finally:
        load.kill()
    _judge(bench, outcomes, dict(zip(passed, began, strict=True)), passed, rejoined)


def _joined(service: Service) -> bool:
    """Every leaving is followed by a return; a worker learns of either only when it counts."""
    return 0 < service.log.count(LEFT) == service.log.count(JOINED)


def greedy(service: Service, address: str) -> tuple[int, int]:
    """How many requests one address was given, and refused, when it asked far more often than it may."""
    asked = [service.ask("GET", "/v1/tasks", X_Forwarded_For=address).status for _ in range((WORKERS + 1) * LIMIT)]
    return asked.count(200), asked.count(429)


def _judge(
    bench: Bench,
    outcomes: list[Outcome],
    began: dict[str, float],
    passed: dict[str, tuple[int, int]],
    rejoined: list[float],
) -> None:
    bad = [outcome for outcome in outcomes if outcome.end != "200"]
    bench.check("killed, back, frozen, thawed: no 5xx", f"{len(outcomes)} asked; {counts(outcomes)}", not bad)
    shown = ", ".join(f"{name} {given}" for name, (given, _) in passed.items())
    # Alone, each worker gives a caller the whole limit.
    most = {name: LIMIT * (WORKERS if name in ("killed", "frozen") else 1) for name in passed}
    held = all(0 < given <= most[name] and refused > 0 for name, (given, refused) in passed.items())
    asked = f"limit of {LIMIT} holds (x {WORKERS} workers while they count alone)"
    bench.check(asked, f"given: {shown}", held)
    worst = max(rejoined)
    bench.check(f"workers rejoin within {REJOIN_S:g} s", f"worst {worst:.1f} s", worst <= REJOIN_S)
    ends = [*list(began.values())[1:], float("inf")]
    took = {
        name: [o.took for o in outcomes if start <= o.began < end]
        for (name, start), end in zip(began.items(), ends, strict=True)
    }
    measured = ", ".join(f"{name} {milliseconds(percentile(values, 99))}" for name, values in took.items())
    over = percentile(took["frozen"], 99) - percentile(took["there"], 99)
    bench.check("p99 of a request (told, not judged)", f"{measured}; frozen costs {milliseconds(over)}", True)


SCENARIO = Scenario("redis", run, plant="needs redis", finds="no 5xx")
