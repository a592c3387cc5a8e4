"""A stop under load, many times: who was admitted gets an answer, and the service is gone when it promised to be."""

from __future__ import annotations

import signal
import subprocess
import time
from contextlib import suppress
from statistics import median

from tests.e2e.conftest import Service
from tests.faults.load import Load, Outcome, Plan, counts
from tests.faults.scenario import Bench, Scenario, leftovers

CLIENTS = 20
GRACE_S = 10
MARGIN_S = 2.0


def run(bench: Bench) -> None:
    cycles = bench.size(30, 2)
    prompts = bench.short_prompts(24)
    outcomes: list[Outcome] = []
    took: list[float] = []
    orphans = 0
    for number in range(cycles):
        bench.say(f"stop {number + 1} of {cycles}")
        service = bench.start(
            QAIO_WORKERS="2",
            QAIO_SLOTS="4",
            QAIO_MAX_WAITING="8",
            QAIO_GRACE_S=str(GRACE_S),
            QAIO_PROMPTS=str(prompts),
        )
        seconds, seen = stop_under_load(service)
        took.append(seconds)
        outcomes += seen
        orphans += len(leftovers(service, []))
    # A refusal is quick; one that says `draining` after the whole grace was admitted, and given up.
    cut = [o for o in outcomes if o.code == "draining" and o.took >= GRACE_S - 1]
    lost = [outcome for outcome in outcomes if not outcome.clean] + cut
    others = {outcome.code for outcome in outcomes if outcome.answered and outcome.end != "200"}
    allowed = {"server_busy", "draining"}
    bench.check(
        f"{cycles} x SIGTERM under load: no admitted request is lost",
        f"{counts(outcomes)}; {len(lost)} lost",
        not lost and others <= allowed and any(outcome.end == "200" for outcome in outcomes),
    )
    limit = GRACE_S + MARGIN_S
    bench.check(
        f"ended within grace + 2 s = {limit:g} s",
        f"median {median(took):.1f} s, worst {max(took):.1f} s",
        max(took) <= limit,
    )
    bench.check("no process is left", orphans, not orphans)


def stop_under_load(service: Service) -> tuple[float, list[Outcome]]:
    """Seconds until the master had ended, and what the clients saw from before the stop until after it."""
    load = Load(Plan(service.port, CLIENTS, 600.0, obey=False))
    try:
        time.sleep(1.5)
        began = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            service.process.wait(GRACE_S + 30)
        seconds = time.monotonic() - began
        time.sleep(0.3)
        return seconds, load.end()
    finally:
        load.kill()


SCENARIO = Scenario("stops", run, plant="abrupt", finds="no admitted request is lost")
