"""Files that eval and calibrate leave behind."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from qwen_allinone.cli.asking import AnsweredRow
from qwen_allinone.cli.labelled_rows import Row
from qwen_allinone.cli.result_files import check_wrong, is_writable, write_calibration, write_wrong
from qwen_allinone.errors import DataFileError
from qwen_allinone.tasks import Calibration, Quality, load_task
from tests.support.tasks import write_prompts

CALIBRATION = Calibration(
    temperature=2.5,
    model="abc:fp32",
    prompt="def",
    data="0" * 64,
    rows=100,
    date="2026-01-01",
    before=Quality(accuracy=0.7, ece=0.2),
    after=Quality(accuracy=0.7, ece=0.02),
)


def asked(text: str) -> AnsweredRow:
    return AnsweredRow(Row(7, {"text": text}, "正面"), "负面", (0.25, 0.75))


def test_wrong_rows_can_be_opened_by_a_spreadsheet_and_hold_no_formula(tmp_path: Path) -> None:
    texts = ["差\n评,", "=1+1", "@x", "-房间小", "＋x", "\tx", "a=b", " \u200b=1"]
    write_wrong(tmp_path / "w.csv", map(asked, texts))
    raw = (tmp_path / "w.csv").read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf")
    rows = list(csv.reader(raw.decode("utf-8-sig").splitlines(keepends=True)))
    assert rows[0] == ["line", "text", "label", "answer", "probability"]
    assert [row[1] for row in rows[1:]] == ["差\n评,", "'=1+1", "'@x", "'-房间小", "'＋x", "'\tx", "a=b", "' \u200b=1"]
    assert rows[1][2:] == ["正面", "负面", "0.7500"] and rows[1][0] == "7"


def test_no_wrong_row_leaves_a_header(tmp_path: Path) -> None:
    write_wrong(tmp_path / "w.csv", [])
    assert (tmp_path / "w.csv").read_text("utf-8-sig").strip() == '"line","text","label","answer","probability"'


def test_a_calibration_is_read_back_by_the_tasks(tmp_path: Path) -> None:
    folder = write_prompts(tmp_path / "prompts") / "sentiment"
    before = load_task(folder)
    file = write_calibration(folder, CALIBRATION)
    after = load_task(folder)
    assert file.name == "calibration.yaml" and after.calibration == CALIBRATION
    assert before.prompt_hash == after.prompt_hash and before.version != after.version
    again = CALIBRATION.model_copy(update={"date": "2027-01-01"})
    write_calibration(folder, again)
    assert load_task(folder).version == after.version, "what it does is the same"
    assert sorted(path.name for path in folder.iterdir()) == ["calibration.yaml", "prompt.md"]


@pytest.mark.parametrize("mine", [b"line,text\n1,mine\n", b"text,label\n", b'\xef\xbb\xbf"line","text"\r\n', b"\n"])
def test_a_file_of_somebody_else_is_not_replaced(tmp_path: Path, mine: bytes) -> None:
    file = tmp_path / "w.csv"
    file.write_bytes(mine)
    for ask in (lambda: check_wrong(file), lambda: write_wrong(file, [asked("a")])):
        with pytest.raises(DataFileError, match="not written by eval.*--wrong"):
            ask()
    assert file.read_bytes() == mine
    (tmp_path / "pipe").symlink_to("/dev/null")
    with pytest.raises(DataFileError, match="not written by eval"):
        check_wrong(tmp_path / "pipe")


def test_wrong_rows_replace_those_of_another_time_and_an_empty_file(tmp_path: Path) -> None:
    file = tmp_path / "w.csv"
    file.touch()
    for inputs in ({"text": "a"}, {"text": "b", "style": "c"}, {"text": "d"}):
        check_wrong(file)
        write_wrong(file, [AnsweredRow(Row(7, inputs, "正面"), "负面", (0.25, 0.75))])
        assert all(value in file.read_text("utf-8-sig") for value in inputs.values())


def test_a_place_that_cannot_be_written_is_named_and_the_old_file_stays(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match=f"mkdir -p {tmp_path}/none.*--wrong"):
        write_wrong(tmp_path / "none" / "w.csv", [asked("a")])
    (tmp_path / "calibration.yaml").mkdir()  # what cannot be replaced by a file
    with pytest.raises(DataFileError, match="temperature: 2.5"):
        write_calibration(tmp_path, CALIBRATION)
    assert os.listdir(tmp_path) == ["calibration.yaml"]


def test_whether_a_folder_takes_files_is_tried(tmp_path: Path) -> None:
    assert is_writable(tmp_path)
    assert not is_writable(tmp_path / "none")
    assert not is_writable(Path("/proc/self"))
