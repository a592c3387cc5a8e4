"""Corrections in their file: whose they are, how long they are kept, how much room they take."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from qwen_allinone.errors import AnswerNotFound, FeedbackUnavailable
from qwen_allinone.state import Corrections, LabelAnswer, corrections, now

DAY_S = 86_400


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that have passed."""
    passed = [0.0]
    monkeypatch.setattr(corrections, "now", lambda: now() + passed[0])
    return passed


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Corrections]:
    made = Corrections(tmp_path / "new" / "feedback.db", days=30, max_mb=1)
    yield made
    made.close()


def answer(request_id: str = "r1", text: str = "还行", task: str = "sentiment") -> LabelAnswer:
    return LabelAnswer(request_id, task, {"text": text}, "正面", 0.75, "v1", corrections.now())


def test_what_was_answered_is_corrected_and_read_back_as_it_was(kept: Corrections) -> None:
    asked = answer()
    kept.remember("alice", asked)
    assert kept.tasks_of("alice", "r1") == {"sentiment": asked}
    first = kept.correct("alice", asked, "负面", "等待")
    second = kept.correct("alice", asked, "正面")
    assert (first.is_first, first.was_right, second.is_first, second.was_right) == (True, False, False, True)
    (read,) = kept.kept("sentiment")
    assert (read.answer, read.label, read.note) == (asked, "正面", "")


@pytest.mark.parametrize("stranger", ["bob", None, "", "=alice", "-"])
def test_an_answer_is_its_caller_s_alone(kept: Corrections, stranger: str | None) -> None:
    kept.remember("alice", answer())
    assert kept.tasks_of(stranger, "r1") == {}
    with pytest.raises(AnswerNotFound):
        kept.correct(stranger, answer(), "负面")


def test_an_id_that_comes_again_stands_for_its_newest_answer_unless_that_was_corrected(kept: Corrections) -> None:
    kept.remember(None, answer(text="一"))
    kept.remember(None, answer(text="二"))
    assert kept.tasks_of(None, "r1")["sentiment"].inputs == {"text": "二"}
    kept.correct(None, answer(text="二"), "负面")
    kept.remember(None, answer(text="三"))
    assert kept.tasks_of(None, "r1")["sentiment"].inputs == {"text": "二"}


def test_an_answer_waits_a_day_and_a_correction_is_kept_for_its_days(kept: Corrections, clock: list[float]) -> None:
    kept.remember(None, answer("early"))
    kept.remember(None, answer("said"))
    kept.correct(None, answer("said"), "负面")
    clock[0] = DAY_S + 1
    assert kept.tasks_of(None, "early") == {} and len(kept.kept("sentiment")) == 1
    clock[0] = 31 * DAY_S
    for number in range(201):
        kept.remember(None, answer(f"new{number}"))
    assert kept.kept("sentiment") == []
    with sqlite3.connect(kept._file) as db:
        assert db.execute("SELECT count(*) FROM answers WHERE request IN ('early', 'said')").fetchone() == (0,)


def test_a_full_file_loses_the_oldest_answers_of_who_has_most_and_no_correction(kept: Corrections) -> None:
    kept.remember("quiet", answer("quiet"))
    kept.remember("loud", answer("said"))
    kept.correct("loud", answer("said"), "负面")
    for number in range(2_000):
        kept.remember("loud", answer(f"r{number}", "字" * 400))
    assert kept._file.stat().st_size <= 1_000_000
    assert kept.tasks_of("quiet", "quiet") and kept.kept("sentiment")
    assert kept.tasks_of("loud", "r1999") and not kept.tasks_of("loud", "r0")


def say(kept: Corrections, owner: str, numbers: range, note: str = "字" * 300) -> None:
    """Answers of a caller, each with its word."""
    for number in numbers:
        asked = answer(f"{owner}{number}", "字" * 300)
        kept.remember(owner, asked)
        kept.correct(owner, asked, "负面", note)


def test_one_caller_s_corrections_do_not_keep_out_the_others(
    kept: Corrections, caplog: pytest.LogCaptureFixture
) -> None:
    say(kept, "bob", range(20))
    say(kept, "loud", range(1_000))
    first = kept._db
    for number in range(200):
        kept.remember("alice", answer(f"a{number}", "字" * 100))
        assert kept.tasks_of("alice", f"a{number}")
    assert kept.correct("alice", answer("a0", "字" * 100), "负面", "字" * 300).is_first
    there = {each.answer.request_id for each in kept.kept("sentiment")}
    assert {f"bob{number}" for number in range(20)} <= there and "loud0" not in there and "loud999" in there
    assert kept._db is first and kept._file.stat().st_size <= 1_000_000
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_the_answer_that_gets_its_word_is_not_what_makes_room(kept: Corrections) -> None:
    say(kept, "loud", range(400))
    with sqlite3.connect(kept._file) as db:
        db.execute("UPDATE answers SET at = at + 1000")
    kept.remember("loud", answer("oldest"))
    for number in range(400, 1_000):
        said = answer(f"loud{number}", "字" * 300)
        kept.remember("loud", said)
        assert kept.correct("loud", said, "负面", "字" * 1_000).is_first


def test_a_row_that_fits_into_no_share_of_the_file_is_not_kept_and_takes_nobody_s_place(
    kept: Corrections, caplog: pytest.LogCaptureFixture
) -> None:
    say(kept, "bob", range(100))
    kept.remember("alice", answer("a"))
    first = kept._db
    for _ in range(3):
        kept.remember("alice", answer("large", "字" * 200_000))
    assert not kept.tasks_of("alice", "large") and kept.tasks_of("alice", "a")
    assert len(kept.kept("sentiment")) == 100
    assert kept._db is first and caplog.text.count("QAIO_FEEDBACK_MAX_MB") == 1


def test_it_survives_a_second_process_and_is_nobody_else_s_to_read(kept: Corrections, tmp_path: Path) -> None:
    kept.remember(None, answer())
    other = Corrections(kept._file, days=30, max_mb=1)
    assert other.correct(None, answer(), "负面").is_first
    other.close()
    assert [each.label for each in kept.kept("sentiment")] == ["负面"]
    assert os.stat(kept._file).st_mode & 0o777 == 0o600


def test_a_file_that_is_none_of_ours_is_told_once_and_costs_nobody_an_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "feedback.db"
    file.write_text("no database, " * 100)
    broken = Corrections(file, days=30, max_mb=1)
    for _ in range(3):
        broken.remember(None, replace(answer(), request_id="x"))
    assert caplog.text.count("QAIO_FEEDBACK_FILE") == 1
    with pytest.raises(FeedbackUnavailable):
        broken.tasks_of(None, "x")
    assert file.read_text().startswith("no database")
