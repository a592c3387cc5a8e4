"""A watched file: changes are taken up, faults are not."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from qwen_allinone.access.reloaded_file import ReloadedFile
from qwen_allinone.errors import AccessFileError


def parse(raw: bytes) -> str:
    if raw.startswith(b"broken"):
        raise AccessFileError("is broken")
    return raw.decode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("one")
    return tmp_path / "file"


@pytest.fixture
def file(path: Path) -> ReloadedFile[str]:
    return ReloadedFile(path, parse, "nothing")


def replace(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    os.replace(new, path)


def test_a_change_is_taken_up_at_the_next_look(path: Path, file: ReloadedFile[str]) -> None:
    assert file.value == "one"
    replace(path, "two")
    assert file.value == "two"


def test_a_file_that_stays_is_read_once(path: Path) -> None:
    readings: list[bytes] = []
    file = ReloadedFile(path, lambda raw: readings.append(raw) or len(readings), 0)
    assert [file.value for _ in range(5)] == [1] * 5


def test_of_equal_size_and_time_the_inode_tells(path: Path, file: ReloadedFile[str]) -> None:
    assert file.value == "one"
    before = path.stat()
    replace(path, "two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.value == "two"


def test_a_broken_file_leaves_the_last_good_value_and_one_line_in_the_log(
    path: Path, file: ReloadedFile[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert file.value == "one"
    replace(path, "broken")
    assert [file.value for _ in range(5)] == ["one"] * 5
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert f"{path}: is broken" in caplog.text
    replace(path, "two")
    assert file.value == "two"
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]


def test_a_vanished_file_leaves_the_last_good_value_and_one_line_in_the_log(
    path: Path, file: ReloadedFile[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert file.value == "one"
    path.unlink()
    assert [file.value for _ in range(5)] == ["one"] * 5
    assert len(caplog.records) == 1 and "No such file" in caplog.text
    path.write_text("two")
    assert file.value == "two"


def test_what_could_not_be_read_is_tried_again_though_it_did_not_change(path: Path, file: ReloadedFile[str]) -> None:
    path.unlink()
    path.mkdir()
    assert file.value == "nothing"
    path.rmdir()
    path.write_text("two")
    assert file.value == "two"


def test_before_the_first_good_reading_there_is_nothing(path: Path, file: ReloadedFile[str]) -> None:
    path.write_text("broken")
    assert file.value == "nothing"
    replace(path, "one")
    assert file.value == "one"


def test_a_check_raises_and_names_the_file(path: Path, file: ReloadedFile[str]) -> None:
    file.check()
    path.write_text("broken")
    with pytest.raises(AccessFileError, match=f"{path}: is broken"):
        file.check()
    path.unlink()
    with pytest.raises(AccessFileError, match=f"{path}: cannot be read: No such file"):
        file.check()
