"""Models that are cut short or altered, and disks that take nothing: said clearly, and never the end of the service."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections import Counter
from pathlib import Path

from tests.e2e.conftest import GUNICORN, PROJECT, Service, environment, free_port, until
from tests.e2e.test_watching import metrics
from tests.faults.scenario import Bench, Scenario

TEXT = "今天心情特别差"
LOADS_S = 60.0
FULL = Path("/dev/full")


def run(bench: Bench) -> None:
    _truncated(bench)
    if bench.plant:
        return
    _flipped(bench)
    _half_broken(bench)
    _no_space_for_logs(bench)


def copied(bench: Bench, name: str) -> Path:
    return Path(shutil.copytree(PROJECT / "demo" / "checkpoint", bench.home / name))


def cut(folder: Path) -> None:
    """Replace the weights by their first half, as a copy that broke off would; who has the old file open keeps it."""
    weights = folder / "model.safetensors"
    half = folder / "half"
    half.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    half.replace(weights)


def flip(folder: Path, place: int) -> None:
    """Flip one bit of the weights' file."""
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[place] ^= 0x40
    weights.write_bytes(data)


def settled(service: Service) -> tuple[int, str]:
    """Status and problem of /readyz once loading has ended, one way or the other."""
    seen: list[tuple[int, str]] = []

    def ended() -> bool:
        if not service.answers("/livez", 200):
            return False
        reply = service.ask("GET", "/readyz")
        seen.append((reply.status, reply.json.get("problem", "")))
        return reply.status == 200 or bool(seen[-1][1])

    until(ended, "the model has loaded or not", LOADS_S)
    return seen[-1]


def _truncated(bench: Bench) -> None:
    bench.say("truncated weights")
    folder = copied(bench, "truncated")
    if not bench.plant:
        cut(folder)
    service = bench.start(ready=False, QAIO_MODEL=str(folder))
    status, problem = settled(service)
    ok = status == 503 and "truncated" in problem and service.process.poll() is None
    ok = ok and service.chat(TEXT).status == 503 and "Traceback" not in service.log
    bench.check("truncated model: not ready, says why, master alive", f"{status}: {problem[:120]}", ok)


def _flipped(bench: Bench) -> None:
    """A folder's files have no list of hashes to be compared with: only what breaks the format can be noticed."""
    bench.say("flipped bits")
    folder = copied(bench, "header")
    flip(folder, 12)  # in the list of tensors
    service = bench.start(ready=False, QAIO_MODEL=str(folder))
    status, problem = settled(service)
    ok = status == 503 and bool(problem) and service.process.poll() is None and "Traceback" not in service.log
    bench.check("a bit flipped in the weights' header: not ready, says why", f"{status}: {problem[:120]}", ok)
    service.end()
    folder = copied(bench, "tensor")
    flip(folder, (folder / "model.safetensors").stat().st_size // 2 + 1)
    service = bench.start(ready=False, QAIO_MODEL=str(folder))
    status, problem = settled(service)
    answer = service.chat(TEXT).status
    measured = (
        f"ready: {status}, chat: {answer}; a folder's weights are not hashed, so it serves"
        if answer == 200
        else f"ready: {status}, chat: {answer} {problem[:120]}"
    )
    bench.check(
        "a bit flipped in a tensor: no 500, master alive",
        measured,
        answer in (200, 503) and service.process.poll() is None,
    )


def _half_broken(bench: Bench) -> None:
    bench.say("one of two workers cannot load")
    folder = copied(bench, "replaced")
    service = bench.start(QAIO_WORKERS="2", QAIO_MODEL=str(folder))
    cut(folder)
    killed, other = service.workers
    os.kill(killed, signal.SIGKILL)
    until(lambda: "model not loaded" in service.log, "the new worker says that it cannot load", LOADS_S)
    asked = bench.size(100, 20)
    statuses = Counter(service.chat(TEXT).status for _ in range(asked))
    found = metrics(service)
    ready, alive = found["qaio_workers_ready"], found["qaio_workers"]
    measured = f"{asked} asked: {', '.join(f'{s}: {n}' for s, n in statuses.items())}; ready: {ready:g} of {alive:g}"
    ok = set(statuses) <= {200, 503} and statuses[200] >= 0.9 * asked and (ready, alive) == (1, 2)
    ok = ok and other in service.workers and service.process.poll() is None
    bench.check("a truncated model and a killed worker: the other serves, the new one is not ready", measured, ok)


def _no_space_for_logs(bench: Bench) -> None:
    """/dev/full is a disk without space for whoever writes; under stderr and under the audit file."""
    bench.say("no space for logs")
    asked = bench.size(50, 5)
    port = free_port()
    given = {"QAIO_AUDIT_FILE": str(FULL)}
    with FULL.open("wb") as full:
        process = subprocess.Popen(
            GUNICORN,
            cwd=PROJECT,
            env=environment(port, bench.home, given),
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=full,
            start_new_session=True,
        )
    service = Service(process, port, FULL)
    try:
        until(lambda: service.answers("/readyz", 200), "it is ready")
        statuses = Counter(service.chat(TEXT).status for _ in range(asked))
        lost: dict[str, float] = {}

        def counted() -> bool:
            found = metrics(service)
            lost.update({name: found[f"qaio_{name}_lines_lost_total"] for name in ("log", "audit")})
            return min(lost.values()) >= asked

        until(counted, "lost lines are counted", 20)
        measured = f"{dict(statuses)}; lost lines: {lost['log']:g} of the log, {lost['audit']:g} of the audit log"
        bench.check("no space for logs: requests still 200, losses counted", measured, statuses == {200: asked})
    finally:
        service.end()


SCENARIO = Scenario("model", run, plant="a whole model", finds="truncated model")
