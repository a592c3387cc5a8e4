"""The harness itself: it runs, it fails when something is wrong, and what is planted is found. The rest is `make faults`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import PROJECT
from tests.faults.scenario import percentile, python

BOUND_S = 300


def harness(*arguments: str, rows: Path) -> tuple[int, list[dict[str, object]], str]:
    """Exit status, rows and output of the harness as one would call it."""
    command = [*python("tests.faults", *arguments), "--json", str(rows)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=BOUND_S, check=False)
    return done.returncode, json.loads(rows.read_text("utf-8")) if rows.exists() else [], done.stdout + done.stderr


@pytest.mark.timeout(BOUND_S + 20)
def test_cheap_scenarios_hold(tmp_path: Path) -> None:
    status, rows, output = harness("--quick", "--only", "abandoned,stops", rows=tmp_path / "rows.json")
    assert {row["scenario"] for row in rows} == {"abandoned", "stops"}, output
    assert [row for row in rows if not row["ok"]] == [], output
    assert status == 0


@pytest.mark.timeout(BOUND_S + 20)
def test_planted_faults_are_found(tmp_path: Path) -> None:
    status, rows, output = harness("--controls", "--only", "fuzz,abandoned,kills", rows=tmp_path / "rows.json")
    assert [(row["scenario"], row["ok"]) for row in rows] == [("fuzz", True), ("abandoned", True), ("kills", True)], (
        output
    )
    assert status == 0


def test_an_unknown_scenario_is_refused_with_the_names_there_are(tmp_path: Path) -> None:
    status, rows, output = harness("--only", "kils", rows=tmp_path / "rows.json")
    assert status == 2 and rows == [] and "kills" in output


@pytest.mark.parametrize(
    ("values", "percent", "expected"), [([], 99, 0.0), ([3.0], 99, 3.0), ([float(n) for n in range(101)], 95, 95.0)]
)
def test_percentiles_are_of_the_values(values: list[float], percent: int, expected: float) -> None:
    assert percentile(values, percent) == pytest.approx(expected)
