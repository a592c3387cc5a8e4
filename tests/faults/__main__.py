"""`python -m tests.faults`: runs the scenarios one after the other and prints one table."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Annotated

import pytest
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.e2e.conftest import services
from tests.faults.scenario import Bench, Check, Scenario

# In this order; the last takes half an hour.
MODULES = (
    "fuzz",
    "injection",
    "overload",
    "neighbours",
    "bomb",
    "long_prompts",
    "hog",
    "junk_keys",
    "guesses",
    "owner_cap",
    "abandoned",
    "streams",
    "kills",
    "store_kills",
    "stops",
    "reloads",
    "redis_away",
    "broken_model",
    "front",
    "steady",
)


def scenarios(only: str = "") -> list[Scenario]:
    """Those named in `only` (comma-separated), or all."""
    found = [import_module(f"tests.faults.{module}").SCENARIO for module in MODULES]
    wanted = only.split(",") if only else [scenario.name for scenario in found]
    if unknown := set(wanted) - {scenario.name for scenario in found}:
        names = ", ".join(scenario.name for scenario in found)
        raise typer.BadParameter(f"no such scenario: {', '.join(sorted(unknown))} (there are: {names})")
    return [scenario for scenario in found if scenario.name in wanted]


def carry_out(scenario: Scenario, console: Console, *, quick: bool, plant: str = "") -> list[Check]:
    """The checks of one scenario; a breakdown is a check that failed, a missing program one that says so."""
    began = time.monotonic()
    title = f"{scenario.name} with a planted fault ({plant})" if plant else scenario.name
    with (
        console.status(title) as status,
        tempfile.TemporaryDirectory(prefix="qaio-faults-") as home,
        services(Path(home)) as start,
    ):
        bench = Bench(Path(home), quick, start, lambda text: status.update(f"{title}: {escape(text)}"), plant)
        try:
            scenario.run(bench)
        except pytest.skip.Exception as missing:
            bench.check("not run", str(missing), False)
        except Exception as error:
            bench.check("runs to its end", f"{type(error).__name__}: {str(error)[-600:]}", False)
    bad = sum(not check.ok for check in bench.checks)
    console.log(f"{title}: {len(bench.checks) - bad} of {len(bench.checks)} hold, {time.monotonic() - began:.0f} s")
    return bench.checks


def control(scenario: Scenario, console: Console) -> Check:
    """With its fault planted, the scenario must find it, in the very check that is about it."""
    checks = carry_out(scenario, console, quick=True, plant=scenario.plant)
    found = [check for check in checks if scenario.finds in check.asked and not check.ok]
    measured = found[0].measured if found else "; ".join(f"{check.asked}: {check.measured}" for check in checks)
    return Check(f"control: the planted fault is found ({scenario.plant})", measured, bool(found))


def table_of(rows: Sequence[tuple[str, Check]]) -> Table:
    table = Table("scenario", "asked", "measured", "ok", title="Under fault", show_lines=True)
    for name, check in rows:
        mark = "[green]yes[/]" if check.ok else "[bold red]NO[/]"
        table.add_row(name, escape(check.asked), escape(check.measured), mark)
    return table


def main(
    only: Annotated[str, typer.Option(help="Names of scenarios, comma-separated; all without it")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="Few and short, for development: minutes")] = False,
    controls: Annotated[bool, typer.Option("--controls", help="Instead, plant each scenario's fault; quick")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the rows to this file too")] = None,
) -> None:
    """Fault scenarios against real servers on loopback; exit status 1 if one does not hold."""
    signal.signal(signal.SIGTERM, interrupt)  # so that what was started is ended
    console = Console(width=None if sys.stdout.isatty() else 160)
    rows: list[tuple[str, Check]] = []
    for scenario in scenarios(only):
        if controls:
            rows.append((scenario.name, control(scenario, console)))
        else:
            rows += [(scenario.name, check) for check in carry_out(scenario, console, quick=quick)]
    console.print(table_of(rows))
    if json_file:
        fields = [{"scenario": name, "asked": c.asked, "measured": c.measured, "ok": c.ok} for name, c in rows]
        json_file.write_text(json.dumps(fields, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    raise typer.Exit(0 if all(check.ok for _, check in rows) else 1)


def interrupt(number: int, frame: FrameType | None) -> None:
    """A handler of SIGTERM with which what was started is ended."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    typer.run(main)
