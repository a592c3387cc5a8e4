"""The harness itself: it runs, it fails when something is wrong, and what is planted is found. The rest is `make faults`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import PROJECT
from tests.faults.fuzz import _places, _with_mark
from tests.faults.long_runs import go_on, read, summed
from tests.faults.scenario import Check, percentile, python

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


def test_a_long_run_goes_on_behind_its_last_whole_portion(tmp_path: Path) -> None:
    notes, asked = tmp_path / "new" / "notes.jsonl", list[tuple[int, int]]()

    def carry(count: int, start: int) -> tuple[int, list[Check]]:
        asked.append((count, start))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return count, [Check("holds", f"{start}", start != 4)]

    with pytest.raises(KeyboardInterrupt):
        go_on(10, 4, notes, carry, lambda text: None)
    with notes.open("a") as file:
        file.write('{"start": 8, "do')  # killed while it was written
    portions = go_on(10, 4, notes, carry, lambda text: None)
    assert asked == [(4, 0), (4, 4), (2, 8), (2, 8)]
    assert portions == read(notes) and [portion.done for portion in portions] == [4, 4, 2]
    assert summed(portions, "bodies", 10) == [
        Check("10 bodies", "10 in 3 portions", True),
        Check("holds", "1 of 3 do not hold, the first: 4", False),
    ]


def test_a_long_run_whose_portion_does_nothing_ends(tmp_path: Path) -> None:
    portions = go_on(10, 4, tmp_path / "notes", lambda count, start: (0, []), lambda text: None)
    assert [row.ok for row in summed(portions, "bodies", 10)] == [False]


def test_an_odd_value_gets_into_every_field() -> None:
    body = {"a": [1, {"b": 2}], "c": {}}
    places = list(_places(body))
    assert places == [(), ("a",), ("a", 0), ("a", 1), ("a", 1, "b"), ("c",)]
    marked = [json.dumps(_with_mark(body, place)).count("odd") for place in places]
    assert marked == [1] * 6 and body == {"a": [1, {"b": 2}], "c": {}}
