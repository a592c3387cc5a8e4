"""What every scenario gets (a bench to work on) and gives (checks: what was asked, what was measured)."""

from __future__ import annotations

import re
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Any, TypeVar

from tests.e2e.conftest import GUNICORN, PROJECT, Service, StartService
from tests.faults.process import descendants

T = TypeVar("T")
PLANTED = (*GUNICORN, "tests.faults.planted_app:app")


@dataclass(frozen=True)
class Check:
    """One line of the table."""

    asked: str
    measured: str
    ok: bool


@dataclass
class Bench:
    """Where a scenario works: folder, scale, services that are ended for it, and a planted fault if it has to find one."""

    home: Path
    quick: bool
    start_service: StartService
    say: Callable[[str], None]
    plant: str = ""
    checks: list[Check] = field(default_factory=list)

    def size(self, full: T, quick: T) -> T:
        """How many, or how long: `quick` is for development."""
        return quick if self.quick else full

    def check(self, asked: str, measured: object, ok: bool) -> None:
        self.checks.append(Check(asked, str(measured), ok))

    def start(self, *, ready: bool = True, **settings: str) -> Service:
        """A service with the demo model, as it is or with the planted fault. Every answer is computed."""
        command = PLANTED if self.plant else GUNICORN
        settings = {"QAIO_CACHE_MB": "0"} | settings
        return self.start_service(command=command, ready=ready, FAULT_PLANT=self.plant, **settings)

    def short_prompts(self, tokens: int) -> Path:
        """The project's prompts with replies of `tokens` at most, so that a request costs little."""
        folder = self.home / f"prompts-{tokens}"
        if not folder.exists():
            shutil.copytree(PROJECT / "prompts", folder)
            for file in folder.glob("*/prompt.md"):
                given = file.read_text("utf-8")
                if "kind: label" in given:  # costs one pass, and a label must fit
                    continue
                text, found = re.subn(r"max_new_tokens: \d+", f"max_new_tokens: {tokens}", given)
                assert found == 1, file
                file.write_text(text, encoding="utf-8")
        return folder


@dataclass(frozen=True)
class Scenario:
    """`run` does the fault; with `plant` in the app or in `run` itself the check whose text has `finds` must fail."""

    name: str
    run: Callable[[Bench], None]
    plant: str
    finds: str


def percentile(values: Sequence[float], percent: int) -> float:
    """0 for no values."""
    if len(values) < 2:
        return values[0] if values else 0.0
    return quantiles(values, n=100, method="inclusive")[percent - 1]


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def leftovers(service: Service, workers: Sequence[int]) -> list[int]:
    """Processes of the service's session that are neither its master nor one of `workers`."""
    return [pid for pid in descendants(service.process.pid) if pid not in (service.process.pid, *workers)]


def wait_until(moment: float, say: Callable[[str], None], what: str) -> None:
    """Sleep until the monotonic `moment`, telling how long it will be."""
    while (left := moment - time.monotonic()) > 0:
        say(f"{what}: {left:.0f} s left")
        time.sleep(min(left, 1.0))


def python(module: str, *arguments: str) -> list[Any]:
    return [sys.executable, "-m", module, *arguments]
