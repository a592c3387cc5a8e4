"""`qwen-allinone tune-prompt`: ways to write a prompt are tried, and the best is written where that is asked."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from qwen_allinone.cli import app, tune_prompt_command
from qwen_allinone.service import FittedTask, GoldFit
from qwen_allinone.tasks import load_task
from tests.support.adapters import write_adapter
from tests.support.tasks import SENTIMENT, write_prompts

runner = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"})
CHAT = SENTIMENT.partition("判断情感。")[0] + (
    "system: 判断情感\nuser: 好\nassistant: 正面\nuser: 差\nassistant: 负面\nuser: $text\n"
)


@pytest.fixture
def prompts(tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = write_prompts(tmp_path / "prompts", sentiment=CHAT)
    for name, value in (
        ("PROMPTS", folder),
        ("MODEL", tiny_checkpoint),
        ("CONTEXT", 256),
        ("THREADS", 1),
        ("FIT", "off"),
    ):
        monkeypatch.setenv(f"QAIO_{name}", str(value))
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    with (tmp_path / "data.csv").open("w", encoding="utf-8", newline="") as out:
        rows = [(f"第{number}句", ["正面", "负面"][number % 2]) for number in range(30)]
        csv.writer(out).writerows([("text", "label"), *rows])
    return tmp_path / "data.csv"


def tune(data: Path, *more: str) -> Result:
    return runner.invoke(app, ["tune-prompt", "sentiment", "--data", str(data), *more])


def judge(monkeypatch: pytest.MonkeyPatch, unseen_gain: float) -> None:
    """Have prompts without examples be the best; on rows that nothing was chosen by, they gain so much."""

    def fit(service: Any, fitted: FittedTask, rows: Sequence[Any]) -> GoldFit:
        bare = len(fitted.task.messages) == 2
        accuracy = 0.5 + (0.2 if len(rows) > 10 else unseen_gain) * bare
        return GoldFit(len(rows), accuracy, accuracy, 0.5, 0.5)

    monkeypatch.setattr(tune_prompt_command, "_fit", fit)


def test_every_way_is_tried_and_nothing_written_unasked(prompts: Path, data: Path) -> None:
    before = load_task(prompts / "sentiment")
    result = tune(data, "--instruction", "Judge.")
    assert result.exit_code == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if "chat" in line]
    assert len(lines) == 8 and sum("best" in line for line in lines) == 1
    assert "24 rows" in result.stdout and "on 6 other rows" in result.stderr
    assert load_task(prompts / "sentiment") == before


def test_the_best_is_written_if_it_is_better_on_other_rows_too(
    prompts: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, before = prompts / "sentiment" / "prompt.md", load_task(prompts / "sentiment")
    judge(monkeypatch, -0.1)
    assert "stays as it is" in tune(data, "--write").stderr and load_task(file.parent) == before
    judge(monkeypatch, 0.1)
    result = tune(data, "--write")
    assert result.exit_code == 0 and "written to" in result.stderr
    after = load_task(file.parent)
    assert after.messages == (before.messages[0], before.messages[-1]) and after.spec == before.spec
    assert (file.parent / "prompt.md.bak").read_text("utf-8") == CHAT


def test_what_cannot_be_varied_is_refused(prompts: Path, data: Path, tmp_path: Path, tiny_checkpoint: Path) -> None:
    few = tmp_path / "few.csv"
    few.write_text("text,label\n好,正面\n", "utf-8")
    assert "at least are needed" in tune(few).stderr
    assert "--instruction: write" in tune(data, "--instruction", "Judge.\nuser: x").stderr
    write_adapter(prompts / "sentiment", tiny_checkpoint)
    assert "was taught the prompt as it is" in tune(data).stderr
    (prompts / "sentiment" / "prompt.md").write_text(SENTIMENT, "utf-8")
    assert "only a chat prompt" in tune(data).stderr
