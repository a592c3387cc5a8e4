"""Half an hour at most of what the service can do, with conversations and streams in it: no error that is not a plain
refusal, and no growth."""

from __future__ import annotations

import time

from tests.faults.load import Load, Plan, counts
from tests.faults.overload import goodput
from tests.faults.process import resident_mib
from tests.faults.scenario import Bench, Scenario

SHARE = 0.8
MOST_GROWTH_MIB = 15.0
PLANNED = {"server_busy"}


def run(bench: Bench) -> None:
    service = bench.start(QAIO_SESSIONS_FILE=str(bench.home / "sessions.db"))
    peak_s, seconds, settle_s = bench.size(60.0, 4.0), bench.size(1800.0, 15.0), bench.size(300.0, 5.0)
    bench.say(f"peak: 40 clients for {peak_s:g} s")
    peak = goodput(Load(Plan(service.port, 40, peak_s, mixed=True)).wait(), peak_s)
    workers = service.workers
    load = Load(Plan(service.port, 500, seconds, rate=max(SHARE * peak, 0.5), obey=False, mixed=True))
    samples: list[tuple[float, float]] = []
    began = time.monotonic()
    try:
        while (passed := time.monotonic() - began) < seconds:
            samples.append((passed, sum(map(resident_mib, workers))))
            bench.say(
                f"{SHARE * peak:.1f} requests a second: {passed:.0f} of {seconds:.0f} s, {samples[-1][1]:.0f} MiB"
            )
            time.sleep(bench.size(30.0, 1.0))
        outcomes = load.wait()
    finally:
        load.kill()
    failed = [o for o in outcomes if not o.answered or (o.end != "200" and o.code not in PLANNED)]
    asked = f"{seconds / 60:g} min at {SHARE:.0%} of the peak ({peak:.1f}/s): no unplanned 5xx"
    bench.check(asked, f"{len(outcomes)} asked; {counts(outcomes)}", not failed and bool(outcomes))
    settled = [(moment, size) for moment, size in samples if moment >= settle_s]
    growth = max(size for _, size in settled) - settled[0][1]
    step = max(1, -(-len(samples) // 8))
    shown = ", ".join(f"{moment / 60:.1f} min {size:.0f}" for moment, size in [*samples[:-1:step], samples[-1]])
    asked = f"workers grow by less than {MOST_GROWTH_MIB:g} MiB after {settle_s / 60:.2g} min"
    bench.check(asked, f"{growth:.0f} MiB ({shown} MiB)", growth < MOST_GROWTH_MIB)
    bench.check("the same workers throughout", str(service.workers == workers), service.workers == workers)


SCENARIO = Scenario("steady", run, plant="leak", finds="grow")
