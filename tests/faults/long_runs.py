"""`python -m tests.faults.long_runs bodies`: what takes an hour or more, in portions that are noted in a file.

A run that was cut goes on behind its last whole portion. Every portion is a scenario of its own, with a fresh service
and requests that no other portion has; what is counted over all is in the notes' lines, one a portion.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from tests.e2e.conftest import PROJECT
from tests.faults import fuzz, steady, store_kills
from tests.faults.__main__ import carry_out, interrupt, table_of
from tests.faults.scenario import Bench, Check, Scenario


@dataclass(frozen=True)
class LongRun:
    """`total` of something, `portion` at a time. `do(bench, count, start)` does so many of it from number `start` on and
    returns how many it did."""

    what: str
    total: int
    portion: int
    do: Callable[[Bench, int, int], int]


def _half_hour(bench: Bench, count: int, start: int) -> int:
    steady.run(bench)
    return count


_PORTION_S = 3600.0
RUNS = {
    "bodies": LongRun("generated bodies", 100_000, 5_000, lambda b, n, start: fuzz.bodies(b, n, start, _PORTION_S)),
    "turns": LongRun("turns", 5_000, 500, lambda b, n, start: store_kills.turns(b, n, _PORTION_S)),
    # What its memory is compared with is its own start: half an hour that was cut begins anew.
    "steady": LongRun("half hours", 1, 1, _half_hour),
}


@dataclass(frozen=True)
class Portion:
    """One line of the notes."""

    start: int
    done: int
    seconds: float
    checks: list[Check]


def read(notes: Path) -> list[Portion]:
    """The portions noted so far; a last line that was cut is no portion."""
    portions = []
    for line in notes.read_text("utf-8").splitlines() if notes.exists() else ():
        try:
            fields = json.loads(line)
        except ValueError:
            continue
        portions.append(Portion(**fields | {"checks": [Check(**check) for check in fields["checks"]]}))
    return portions


def note(notes: Path, portion: Portion) -> None:
    """Add a line for `portion`."""
    notes.parent.mkdir(parents=True, exist_ok=True)
    cut = notes.exists() and not notes.read_bytes().endswith(b"\n")
    with notes.open("a", encoding="utf-8") as file:
        file.write("\n" * cut + json.dumps(asdict(portion), ensure_ascii=False) + "\n")


def go_on(
    total: int, most: int, notes: Path, carry: Callable[[int, int], tuple[int, list[Check]]], say: Callable[[str], None]
) -> list[Portion]:
    """Have portions of `most` done by `carry(count, start)`, from where the notes end, until there are `total`.

    A portion that did nothing ends the run, whatever is left: the next would do as little.
    """
    portions = read(notes)
    while (done := sum(portion.done for portion in portions)) < total:
        say(f"{done} of {total}")
        began, start = time.monotonic(), done
        did, checks = carry(min(most, total - done), start)
        portions.append(Portion(start, did, time.monotonic() - began, checks))
        note(notes, portions[-1])
        if not did:
            break
    return portions


def summed(portions: Sequence[Portion], what: str, total: int) -> list[Check]:
    """How much was done; how often each check held, with the first measurement that did not."""
    done = sum(portion.done for portion in portions)
    checks = [check for portion in portions for check in portion.checks]
    rows = [Check(f"{total} {what}", f"{done} in {len(portions)} portions", done >= total)]
    for asked, count in Counter(check.asked for check in checks).items():
        bad = [check.measured for check in checks if check.asked == asked and not check.ok]
        last = next(check.measured for check in reversed(checks) if check.asked == asked)
        shown = (
            f"{len(bad)} of {count} do not hold, the first: {bad[0]}" if bad else f"all {count} hold, the last: {last}"
        )
        rows.append(Check(asked, shown, not bad))
    return rows


def main(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(RUNS)}")],
    total: Annotated[int, typer.Option(help="How many in all; as asked without it")] = 0,
    portion: Annotated[int, typer.Option(help="How many at a time; whole portions are what a cut run keeps")] = 0,
    notes: Annotated[Path | None, typer.Option(help="Where they are noted; data/faults/NAME.jsonl without it")] = None,
) -> None:
    """Do a long run, or go on with it; exit status 1 if something did not hold. Remove the notes to begin anew."""
    if name not in RUNS:
        raise typer.BadParameter(f"no such run: {name} (there are: {', '.join(RUNS)})")
    signal.signal(signal.SIGTERM, interrupt)
    run, console = RUNS[name], Console(width=None if sys.stdout.isatty() else 160)
    total, notes = total or run.total, notes or PROJECT / "data" / "faults" / f"{name}.jsonl"

    def carry(count: int, start: int) -> tuple[int, list[Check]]:
        did: list[int] = []

        def do(bench: Bench) -> Any:
            did.append(run.do(bench, count, start))

        checks = carry_out(Scenario(name, do, plant="", finds=""), console, quick=False)
        return sum(did), checks

    portions = go_on(total, portion or run.portion, notes, carry, console.log)
    rows = summed(portions, run.what, total)
    console.print(table_of([(name, row) for row in rows]))
    raise typer.Exit(0 if all(row.ok for row in rows) else 1)


if __name__ == "__main__":
    typer.run(main)
