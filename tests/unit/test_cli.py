"""The command line on the demo model and on models that do not load."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from qwen_allinone import report
from qwen_allinone.cli import app

ERRORS = 2
# Wide enough that rich does not wrap what the tests look for.
runner = CliRunner(env={"COLUMNS": "240", "TERM": "dumb"})


@pytest.fixture
def demo(demo_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QAIO_MODEL", "demo")
    monkeypatch.setenv("QAIO_THREADS", "1")


@pytest.mark.usefixtures("demo")
def test_ask_prints_the_label_and_then_the_reply() -> None:
    result = runner.invoke(app, ["ask", "今天心情特别差，工作也不顺利"])
    first, reply = result.stdout.strip().split("\n", 1)
    assert result.exit_code == 0
    assert first.startswith("😢 负面 (")
    assert len(reply) > 5


@pytest.mark.usefixtures("demo")
def test_ask_says_what_is_wrong_with_an_empty_text() -> None:
    result = runner.invoke(app, ["ask", "  "])
    assert result.exit_code == ERRORS
    assert "请输入内容" in result.stderr


@pytest.mark.usefixtures("demo")
def test_check_counts_the_gold_cases_of_a_task() -> None:
    result = runner.invoke(app, ["check", "sentiment"])
    row = next(line for line in result.stdout.splitlines() if "sentiment" in line and "%" in line)
    cells = [cell.strip() for cell in row.strip("│| ").replace("│", "|").split("|")]
    assert result.exit_code == 0
    assert cells[0] == "sentiment"
    assert int(cells[2]) <= int(cells[1]) >= 30
    assert cells[3] == f"{int(cells[2]) / int(cells[1]):.1%}"


@pytest.mark.usefixtures("demo")
def test_check_fails_when_a_task_passes_less_than_asked() -> None:
    assert runner.invoke(app, ["check", "sentiment", "--at-least", "1.01", "--no-wrong"]).exit_code == 1


@pytest.mark.usefixtures("demo")
def test_check_of_an_unknown_task_lists_the_tasks() -> None:
    result = runner.invoke(app, ["check", "nope"])
    assert result.exit_code == ERRORS
    assert "chat、sentiment" in result.stderr


@pytest.mark.usefixtures("demo")
def test_doctor_shows_settings_files_labels_kernel_and_advice() -> None:
    result = runner.invoke(app, ["doctor"])
    assert result.exit_code == 0
    for part in ("QAIO_MODEL*", "model.safetensors", "sentiment: tokens of 正面", "kernel, weights", "stand-in"):
        assert part in result.stdout


def test_a_model_that_does_not_load_ends_with_the_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QAIO_MODEL", str(tmp_path / "none"))
    result = runner.invoke(app, ["ask", "你好"])
    assert result.exit_code == ERRORS
    assert "does not exist" in result.stderr
    assert "QAIO_MODEL=demo" in result.stderr


def test_an_unknown_setting_stops_every_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QAIO_MODLE", "demo")
    for command in (["serve"], ["ask", "x"], ["check"], ["doctor"]):
        result = runner.invoke(app, command)
        assert result.exit_code == ERRORS
        assert "QAIO_MODLE" in result.stderr


def test_the_memory_limit_is_the_smaller_of_cgroup_and_machine(tmp_path: Path) -> None:
    machine = report.memory_limit([])
    limited, unlimited = tmp_path / "limited", tmp_path / "unlimited"
    limited.write_text("1000000\n")
    unlimited.write_text("max\n")
    assert report.memory_limit([limited]) == 1_000_000
    assert report.memory_limit([unlimited, tmp_path / "absent"]) == machine
