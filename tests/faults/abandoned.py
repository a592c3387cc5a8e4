"""Clients that ask for much and leave: their work is dropped, and the next client does not wait for it."""

from __future__ import annotations

import time

import requests

from tests.e2e.conftest import Service, until
from tests.e2e.test_watching import metrics
from tests.faults.load import Load, Plan, counts
from tests.faults.scenario import Bench, Scenario

CLIENTS = 200
STAY_S = 0.5
NEXT_S = 5.0
SETTLE_S = 5.0
PATIENCE_S = 4 * NEXT_S  # of the next one
# No two begin alike, so that each has to be read whole: how long the model's replies are does not matter.
LONG = tuple(
    f"{number}：" + "今天发生了很多事情，我想慢慢说给你听，请你认真地回应我。" * 20 for number in range(CLIENTS)
)
GAUGES = ("qaio_num_requests_running", "qaio_num_requests_waiting")


def run(bench: Bench) -> None:
    service = bench.start(QAIO_SLOTS="4", QAIO_MAX_WAITING=str(CLIENTS))
    assert service.chat("今天很开心").status == 200  # warm
    bench.say(f"{CLIENTS} clients ask, and leave after {STAY_S} s")
    # One request each: by the time they would ask again, the plan is over.
    outcomes = Load(Plan(service.port, CLIENTS, STAY_S, texts=LONG, leave_after_s=STAY_S)).wait()
    began = time.monotonic()
    answered = next_one(service)
    took = time.monotonic() - began
    left = sum(outcome.end == "left" for outcome in outcomes)
    bench.check(f"{CLIENTS} clients leave after {STAY_S} s", counts(outcomes), left >= 0.8 * CLIENTS)
    bench.check(
        f"the next request is answered within {NEXT_S:g} s",
        f"{answered} after {took:.2f} s",
        answered == "200" and took < NEXT_S,
    )
    shown: dict[str, float] = {}

    def idle() -> bool:
        found = metrics(service)
        shown.update({name: found[name] for name in GAUGES})
        return not any(shown.values())

    try:
        seconds = until(idle, "nothing runs or waits", SETTLE_S)
        measured = f"0 and 0 within {seconds:.1f} s"
    except (AssertionError, OSError):
        measured = " and ".join(f"{value:g}" for value in shown.values())
    bench.check("nothing is running or waiting then", measured, not any(shown.values()))


def next_one(service: Service) -> str:
    """What the next client gets; one who loses his patience, on a slow machine, has been kept waiting too."""
    url = f"http://127.0.0.1:{service.port}/chat"
    try:
        return str(requests.post(url, json={"text": "今天很开心"}, timeout=PATIENCE_S).status_code)
    except requests.RequestException as error:
        return type(error).__name__


SCENARIO = Scenario("abandoned", run, plant="deaf", finds="next request")
