"""Alerts about rows of files: each row that fires once, through runs that are broken off and resumed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from qwen_allinone import desk
from qwen_allinone.cli.feedback_alerts import row_alerts
from qwen_allinone.desk.asking import Said, TaskInfo
from qwen_allinone.errors import DataFileError
from qwen_allinone.settings import Settings
from qwen_allinone.state import SqliteOutbox
from tests.support.receiver import Receiver, write_alerts

RULES = """
  - {name: low, when: {labels: {sentiment: 负面}, rating: {at_most: 2}}, show_text: true, channels: ops}
  - {name: many, when: {labels: {sentiment: 负面}}, rate: {count: 2, within: 1h}, channels: ops}
"""
ABOUT: dict[str, object] = {"files": "these"}
NEGATIVE = ["第 2 条不好", "第 4 条不好", "第 6 条不好"]


def said(task: str, inputs: Mapping[str, str]) -> Said:
    """A clerk that finds bad what says so."""
    return Said("负面" if "不好" in inputs["text"] else "正面", 0.9)


CLERK = desk.Clerk("m", {"sentiment": TaskInfo(("正面", "负面"), None)}, said)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.down()


@pytest.fixture
def settings(tmp_path: Path, receiver: Receiver) -> Settings:
    return Settings.load(
        {
            "QAIO_ALERTS": str(write_alerts(tmp_path, receiver.url, RULES)),
            "QAIO_ALERTS_OUTBOX": str(tmp_path / "alerts.db"),
            "QAIO_ALERTS_NETWORKS": "127.0.0.1",
        }
    )


@pytest.fixture
def table(tmp_path: Path) -> desk.Table:
    rows = [f"第 {n} 条{'不好' if n % 2 == 0 else '好'},1" for n in range(1, 8)]
    (tmp_path / "r.csv").write_text("text,stars\n" + "\n".join(rows) + "\n", "utf-8")
    return desk.open_table([tmp_path / "r.csv"], desk.Columns(text="text", rating="stars"))


def run(table: desk.Table, settings: Settings, folder: Path, *, resume: bool = False, ends_at: str = "") -> None:
    """Label all rows; after the alert about the row `ends_at` is kept, and before the row is, the process is gone."""
    with (
        desk.Journal(folder / "journal.jsonl", ABOUT, resume=resume) as journal,
        row_alerts(settings, ABOUT, folder, journal) as tell,
    ):
        assert tell

        def tell_and_end(feedback: desk.Feedback, answers: Any) -> None:
            tell(feedback, answers)
            if feedback.text == ends_at:
                raise DataFileError("gone")

        desk.label(table, CLERK, ["sentiment"], journal, sure=0.9, at_once=2, on_done=lambda: None, tell=tell_and_end)


def test_each_row_that_fires_is_told_once_though_the_run_was_broken_off(
    table: desk.Table, settings: Settings, tmp_path: Path, receiver: Receiver
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    with pytest.raises(DataFileError, match="gone"):
        run(table, settings, folder, ends_at="第 4 条不好")
    run(table, settings, folder, resume=True)
    told = [one.body["data"] for one in receiver.taken]
    assert sorted(data["text"] for data in told) == NEGATIVE
    assert {(data["rule"], data["source"], data["rating"]) for data in told} == {("low", "feedback", 1.0)}
    assert {data["place"] for data in told} == {"r.csv:3", "r.csv:5", "r.csv:7"}


def test_another_run_of_the_same_file_tells_again(
    table: desk.Table, settings: Settings, tmp_path: Path, receiver: Receiver
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        run(table, settings, tmp_path / name)
    assert sorted(one.body["data"]["text"] for one in receiver.taken) == sorted(NEGATIVE * 2)


def test_an_outbox_that_cannot_be_written_ends_the_run_with_what_to_do_and_nothing_is_lost(
    table: desk.Table, settings: Settings, tmp_path: Path, receiver: Receiver
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    broken = settings.model_copy(update={"alerts_outbox": tmp_path / "r.csv" / "alerts.db"})
    with pytest.raises(DataFileError, match="QAIO_ALERTS_OUTBOX=.*--resume"):
        run(table, broken, folder)
    run(table, settings, folder, resume=True)
    assert sorted(one.body["data"]["text"] for one in receiver.taken) == NEGATIVE
    assert SqliteOutbox(settings.alerts_outbox).counts()["waiting"] == 0
