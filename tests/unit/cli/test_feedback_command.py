"""`qwen-allinone feedback` on the demo model."""

from __future__ import annotations

import csv
import shutil
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from qwen_allinone.cli import app
from qwen_allinone.shipped_files import SHIPPED

ERRORS = 2
runner = CliRunner(env={"COLUMNS": "240", "TERM": "dumb"})


@pytest.fixture(autouse=True)
def _demo(demo_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("QAIO_MODEL", "demo")
    monkeypatch.setenv("QAIO_THREADS", "1")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dates.csv").write_text("date,num\n2026-09-01,1\n2026-09-02,2\n", "utf-8")
    (tmp_path / "a.csv").write_text("日期,说法\n2026-09-01,修了三次还是坏的，必须给我退款\n2026-09-02,\n", "utf-8")


def command(*arguments: str) -> Result:
    return runner.invoke(app, ["feedback", *arguments])


def test_a_file_is_labelled_and_reported_and_its_columns_are_shown(tmp_path: Path) -> None:
    result = command("a.csv", "--out", "out")
    assert result.exit_code == 0, result.stderr
    assert (
        "--text     说法" in result.stderr
        and "--date     日期" in result.stderr
        and "--rating   (none)" in result.stderr
    )
    assert "2 rows: 0 positive, 1 negative, 1 without a label; 1 alarms" in result.stdout
    with (tmp_path / "out" / "labelled.csv").open(encoding="utf-8-sig", newline="") as file:
        complaint, empty = csv.DictReader(file)
    assert (complaint["情感"], complaint["意图"]) == ("负面", "投诉") and complaint["建议回复"] and complaint["关键词"]
    assert empty["说明"] == "内容为空"
    assert "demo" in (tmp_path / "out" / "report.html").read_text("utf-8")
    assert command("a.csv", "--out", "out").exit_code == ERRORS, "a run is there already"


def test_drafts_that_were_cut_off_are_counted_and_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = shutil.copytree(SHIPPED / "prompts", tmp_path / "prompts") / "suggest" / "prompt.md"
    prompt.write_text(prompt.read_text("utf-8").replace("max_new_tokens: 96", "max_new_tokens: 2"), "utf-8")
    monkeypatch.setenv("QAIO_PROMPTS", str(tmp_path / "prompts"))
    result = command("a.csv", "--out", "out")
    assert result.exit_code == 0, result.stderr
    assert "1 drafted replies repeated themselves or were cut off, and were dropped; see labelled.csv" in result.stdout
    with (tmp_path / "out" / "labelled.csv").open(encoding="utf-8-sig", newline="") as file:
        complaint = next(csv.DictReader(file))
    assert not complaint["建议回复"] and "没有采用" in complaint["说明"]


def test_where_ray_is_not_installed_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "qwen_allinone.desk.cluster", raising=False)
    result = command("a.csv", "--engine", "ray")
    assert result.exit_code == ERRORS and "pip install -r requirements-ray.txt" in result.stderr, result.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "--sample"),
        (("dates.csv",), "no text: date, num. Name the one with what people say with --text"),
        (("a.csv", "--text", "说发"), "no column '说发'"),
        (("a.csv", "--without", "sentiment"), "--without sentiment"),
        (("b.csv",), "cannot be read"),
        (("a.csv", "--url", "http://127.0.0.1:9"), "does not answer"),
        (("a.csv", "--engine", "ray", "--url", "http://127.0.0.1:9"), "take one"),
        (("a.csv", "--actors", "2"), "add --engine ray"),
        (("ftp://somewhere/a.csv",), "no store that is known"),
    ],
)
def test_what_cannot_be_done_is_told_before_a_model_is_loaded(
    arguments: tuple[str, ...], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qwen_allinone.bootstrap.build_service", lambda _: pytest.fail("loads the model first"))
    result = command(*arguments)
    assert result.exit_code == ERRORS and told in result.stderr, result.output
