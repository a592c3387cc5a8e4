"""`qwen-allinone tune`: what is refused, what is kept when it ends early. What is learnt: tests/unit/engine."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from qwen_allinone.cli import app, tune_command
from qwen_allinone.engine.tuning import Quality
from qwen_allinone.tasks import load_task
from tests.support.adapters import write_adapter
from tests.support.tasks import KEYWORDS, write_prompts

runner = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"})


@pytest.fixture
def prompts(tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = write_prompts(tmp_path / "prompts", keywords=KEYWORDS)
    monkeypatch.setenv("QAIO_PROMPTS", str(folder))
    monkeypatch.setenv("QAIO_MODEL", str(tiny_checkpoint))
    monkeypatch.setenv("QAIO_CONTEXT", "256")
    monkeypatch.setenv("QAIO_THREADS", "1")
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write(
        tmp_path / "data.csv", [(f"第{n}句，{'很好' if n % 2 else '很差'}", "负正"[n % 2] + "面") for n in range(40)]
    )


def write(file: Path, rows: list[tuple[str, str]]) -> Path:
    with file.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([("text", "label"), *rows])
    return file


def tune(task: str, data: Path, *more: str) -> Result:
    return runner.invoke(app, ["tune", task, "--data", str(data), *more])


def script(monkeypatch: pytest.MonkeyPatch, *steps: Quality | BaseException) -> list[int]:
    """Have epochs end with these qualities; returns where the numbers of those that are saved go."""
    saved: list[int] = []

    class Scripted:
        def __init__(self, *_: Any) -> None:
            self._at = -1

        def epochs(self, *_: Any) -> Iterator[Quality]:
            for step in steps:
                self._at += 1
                if isinstance(step, BaseException):
                    raise step
                yield step

        def save(self, folder: Path) -> None:
            saved.append(self._at)

    monkeypatch.setattr(tune_command, "Tuner", Scripted)
    return saved


def test_a_task_is_taught_and_its_adapter_lies_beside_its_prompt(prompts: Path, data: Path) -> None:
    pytest.importorskip("peft")
    result = tune("sentiment", data, "--epochs", "3", "--learning-rate", "0.01")
    assert result.exit_code == 0, result.stderr
    assert "32 rows to learn from, 8 to measure on" in result.stderr and "8 rows held out" in result.stdout
    task = load_task(prompts / "sentiment")
    assert task.adapter is not None and task.adapter.config.r == 8
    again = tune("sentiment", data)
    assert again.exit_code == 2 and "--replace" in again.stderr


def test_ctrl_c_keeps_the_best_so_far(prompts: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [Quality(1.0, 0.5), Quality(0.9, 0.7), Quality(0.5, 0.6), Quality(0.8, 0.7), KeyboardInterrupt()]
    saved = script(monkeypatch, *steps)
    result = tune("sentiment", data)
    assert result.exit_code == 0 and saved == [1, 3] and "ended early" in result.stderr
    assert [line for line in result.stdout.splitlines() if "kept" in line and "70.0%" in line]


@pytest.mark.parametrize(
    "steps", [[Quality(1.0, 0.5), Quality(1.1, 0.5)], [Quality(1.0, 0.5), KeyboardInterrupt()], [KeyboardInterrupt()]]
)
def test_nothing_is_written_where_nothing_was_gained(
    prompts: Path, data: Path, monkeypatch: pytest.MonkeyPatch, steps: list[Any]
) -> None:
    assert script(monkeypatch, *steps) == []
    result = tune("sentiment", data)
    assert result.exit_code == 2 and "nothing was written" in result.stderr
    assert not (prompts / "sentiment" / "adapter_config.json").exists()


def test_without_peft_it_says_what_to_install(prompts: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    result = tune("sentiment", data)
    assert result.exit_code == 2 and "pip install -r requirements-tune.txt" in result.stderr


def test_what_cannot_be_taught_is_refused(prompts: Path, data: Path, tmp_path: Path, tiny_checkpoint: Path) -> None:
    assert "only labels and texts" in tune("keywords", data).stderr
    assert "too few" in tune("sentiment", write(tmp_path / "few.csv", [("好", "正面"), ("坏", "负面")])).stderr
    same = write(tmp_path / "same.csv", [("总是这句", "正面")] * 50)
    assert "too few" in tune("sentiment", same).stderr, "a text that is learnt from is not measured on"
    assert "too few" in tune("sentiment", data, "--held-out", str(data)).stderr
    write_adapter(prompts / "sentiment", tiny_checkpoint)
    assert "has an adapter already" in tune("sentiment", data).stderr
