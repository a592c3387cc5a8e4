"""Workers killed under load, many times: each costs its own requests, and nothing else for good."""

from __future__ import annotations

import json
import os
import signal
import time
from statistics import median

from tests.e2e.conftest import Service, until
from tests.faults.load import Load, Outcome, Plan, counts
from tests.faults.process import open_files
from tests.faults.scenario import Bench, Scenario, leftovers

CLIENTS = 12
READY_S = 60.0


def run(bench: Bench) -> None:
    kills = bench.size(20, 2)
    service = bench.start(QAIO_WORKERS="2", QAIO_SLOTS="4", QAIO_MAX_WAITING="16", QAIO_LOG_FORMAT="json")
    master = service.process.pid
    files = open_files(master)
    load = Load(Plan(service.port, CLIENTS, 3600.0, obey=False))
    killed: list[tuple[int, float]] = []
    back: list[float] = []
    try:
        for number in range(kills):
            time.sleep(bench.size(2.0, 1.0))
            bench.say(f"kill {number + 1} of {kills}")
            victim = service.workers[number % 2]
            killed.append((victim, time.monotonic()))
            os.kill(victim, signal.SIGKILL)
            back.append(until(lambda: ready(service) == 3 + len(back), "a new worker is ready", READY_S))
        time.sleep(1.0)
        outcomes = load.end()
    finally:
        load.kill()
    lost = [outcome for outcome in outcomes if not outcome.answered]
    bench.check(f"{kills} x kill -9 of a worker: master alive", _state(service), service.process.poll() is None)
    bench.check("ready again each time", f"median {median(back):.1f} s, worst {max(back):.1f} s", len(back) == kills)
    alien = not_of_the_killed(service, lost, killed)
    measured = f"{counts(outcomes)}; {len(lost)} lost, {len(alien)} of them not the killed worker's"
    others = [outcome for outcome in outcomes if outcome.answered and outcome.end not in ("200", "503")]
    most = kills * CLIENTS
    bench.check("only the killed worker's requests fail", measured, not alien and not others and len(lost) <= most)
    left = leftovers(service, service.workers)
    bench.check("no orphan processes", f"{len(left)} besides master and {len(service.workers)} workers", not left)
    now = open_files(master)
    bench.check("the master's open files do not grow", f"{files} before, {now} after", now <= files)


def ready(service: Service) -> int:
    return service.log.count("ready: model")


def _state(service: Service) -> str:
    return "alive" if service.process.poll() is None else f"ended with {service.process.returncode}"


def not_of_the_killed(service: Service, lost: list[Outcome], killed: list[tuple[int, float]]) -> list[Outcome]:
    """Lost requests that did not run when a worker was killed, or that a surviving worker has answered by its log."""
    answered = set()
    for line in service.log.splitlines():
        if "load-" in line:
            answered.add(json.loads(line).get("request_id"))
    found = []
    for outcome in lost:
        during = any(outcome.began <= moment <= outcome.began + outcome.took for _, moment in killed)
        if not during or outcome.end == "hang" or outcome.id in answered:
            found.append(outcome)
    return found


SCENARIO = Scenario("kills", run, plant="orphans", finds="orphan")
