"""Reloads under load, many times: the prompts change, workers take over, and no client notices."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

from tests.e2e.conftest import alive, until
from tests.faults.load import Load, Plan, counts
from tests.faults.scenario import Bench, Scenario

CLIENTS = 6


def run(bench: Bench) -> None:
    cycles = bench.size(200, 3)
    prompts = Path(shutil.copytree(bench.short_prompts(8), bench.home / "prompts-changing"))
    file = prompts / "chat" / "prompt.md"
    text = file.read_text("utf-8")
    service = bench.start(QAIO_PROMPTS=str(prompts), QAIO_PROMPTS_MAY_LOSE="1", QAIO_MAX_WAITING="64")
    # Every second client keeps its connection: those are the ones that an old worker could turn away.
    load = Load(Plan(service.port, CLIENTS, 36_000.0, keep_alive=True, obey=False))
    versions = set[str]()
    try:
        for number in range(1, cycles + 1):
            bench.say(f"reload {number} of {cycles}")
            old = service.workers
            file.write_text(text.replace("user: $text", f"user: $text{'。' * (number % 2)}"), "utf-8")
            service.process.send_signal(signal.SIGHUP)
            until(lambda: service.log.count("are in force") == number, "the new worker has taken over")  # noqa: B023
            until(lambda: not any(map(alive, old)), "the old worker is gone")  # noqa: B023
            versions.add(service.ask("GET", "/livez").headers["X-Prompt-Version"])
        outcomes = load.end()
    finally:
        load.kill()
    lost = [outcome for outcome in outcomes if outcome.end != "200"]
    bench.check(
        f"{cycles} x SIGHUP with changed prompts under load: no request is lost or refused",
        f"{counts(outcomes)}; {len(versions)} versions answered",
        bool(outcomes) and not lost and len(versions) == 2,
    )


SCENARIO = Scenario("reloads", run, plant="abrupt retirement", finds="no request is lost")
