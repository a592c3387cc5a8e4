"""Ten times as many clients as are admitted, for minutes: everybody gets an answer, and the work goes on at its pace."""

from __future__ import annotations

import http.client
import threading
import time

from tests.e2e.conftest import Service
from tests.faults.load import Load, Outcome, Plan, counts
from tests.faults.scenario import Bench, Scenario, milliseconds, percentile

SLOTS, WAITING = 4, 8
TIMES = 10
REFUSED_S = 0.250
ALIVE_S = 0.200


def run(bench: Bench) -> None:
    service = bench.start(QAIO_SLOTS=str(SLOTS), QAIO_MAX_WAITING=str(WAITING))
    admitted = SLOTS + WAITING
    peak_s, seconds = bench.size(60.0, 5.0), bench.size(300.0, 10.0)
    bench.say(f"peak: {admitted} clients for {peak_s:g} s")
    Load(Plan(service.port, admitted, bench.size(5.0, 1.0))).wait()  # warm
    peak = goodput(Load(Plan(service.port, admitted, peak_s)).wait(), peak_s)
    bench.say(f"{TIMES} times as many for {seconds:g} s")
    load = Load(Plan(service.port, TIMES * admitted, seconds, keep_alive=True))
    with Probe(service) as probe:
        outcomes = load.wait()
    reached = goodput(outcomes, seconds)
    refusals = [outcome.took for outcome in outcomes if outcome.end == "503"]
    unanswered = [outcome for outcome in outcomes if not outcome.answered]
    others = [outcome for outcome in outcomes if outcome.end not in ("200", "503")]
    told = all(outcome.retry_after for outcome in outcomes if outcome.end == "503")
    slow = percentile(refusals, 99)
    asked = f"{TIMES} x {admitted} clients for {seconds:g} s: every request is answered"
    bench.check(asked, f"{len(outcomes)} asked; {counts(outcomes)}", not unanswered and not others and told)
    share = reached / peak if peak else 0.0
    measured = f"{share:.0%} ({reached:.1f}/s of {peak:.1f}/s)"
    bench.check("goodput at least 90 % of the peak", measured, share >= 0.9)
    bench.check(
        "refusals: p99 < 250 ms", f"{milliseconds(slow)} of {len(refusals)}", bool(refusals) and slow < REFUSED_S
    )
    alive = percentile(probe.took, 99)
    ok = bool(probe.took) and not probe.failed and alive < ALIVE_S
    bench.check("/livez: p99 < 200 ms", f"{milliseconds(alive)} of {len(probe.took)}, {probe.failed} without a 200", ok)


def goodput(outcomes: list[Outcome], seconds: float) -> float:
    """Answers a second within the plan's time; what ends after it does not count."""
    began = min((outcome.began for outcome in outcomes), default=0.0)
    good = [o for o in outcomes if o.end == "200" and o.began + o.took <= began + seconds]
    return len(good) / seconds


class Probe:
    """Asks /livez ten times a second, each time on a new connection, from a thread of its own."""

    def __init__(self, service: Service) -> None:
        self.took: list[float] = []
        self.failed = 0
        self._service = service
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Probe:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(90)

    def _run(self) -> None:
        while not self._ended.wait(0.1):
            began = time.monotonic()
            try:
                self.failed += self._service.ask("GET", "/livez").status != 200
            except (OSError, http.client.HTTPException):
                self.failed += 1
            self.took.append(time.monotonic() - began)


SCENARIO = Scenario("overload", run, plant="slow refusals", finds="refusals")
