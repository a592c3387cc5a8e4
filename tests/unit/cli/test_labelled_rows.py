"""Labelled CSV files, good ones and those that people really have."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwen_allinone.cli.labelled_rows import Column, Table, read_table
from qwen_allinone.errors import DataFileError
from tests.conftest import PROJECT

TEXT = [Column("text", "text")]
ALLOWED = ("正面", "负面")


def read(
    file: Path,
    raw: str | bytes,
    columns: list[Column] | None = None,
    label: str = "label",
    limit: int = 0,
    **names: str,
) -> Table:
    file.write_bytes(raw if isinstance(raw, bytes) else raw.encode())
    return read_table(file, columns or TEXT, label, ALLOWED, names, limit)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data.csv"


def test_rows_have_their_line_their_inputs_and_their_label(file: Path) -> None:
    table = read(file, 'id,label,text\n1,正面,很好\n2,负面,"一行\n又一行"\n\n3,正面,"说""好"""\n')
    assert [(row.line, row.inputs["text"], row.label) for row in table.rows] == [
        (2, "很好", "正面"),
        (3, "一行\n又一行", "负面"),
        (6, '说"好"', "正面"),
    ]
    assert table.problems == [] and len(table.sha256) == 64


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_any_line_end_and_a_byte_order_mark(file: Path, end: str, mark: str) -> None:
    table = read(file, mark + end.join(["label,text", "正面,很\u2028好\x0b", "负面,差"]))
    assert [(row.line, row.inputs["text"]) for row in table.rows] == [(2, "很\u2028好\x0b"), (3, "差")]


def test_excels_separator_line_is_understood(file: Path) -> None:
    table = read(file, "sep=;\nlabel;text\n正面;很好, 真的\n")
    assert [(row.line, row.inputs["text"]) for row in table.rows] == [(3, "很好, 真的")]


def test_a_file_may_be_separated_by_tabs(file: Path) -> None:
    table = read(file, "label\ttext\n正面\t很好, 真的; 好\n负面\t差\n")
    assert [(row.label, row.inputs["text"]) for row in table.rows] == [("正面", "很好, 真的; 好"), ("负面", "差")]
    held_out = PROJECT / "demo" / "heldout" / "unseen.tsv"
    table = read_table(held_out, TEXT, "label", ALLOWED, {})
    assert len(table.rows) == len(held_out.read_text("utf-8").splitlines()) - 1 and table.problems == []


def test_other_names_of_columns_and_labels(file: Path) -> None:
    table = read(file, "好评,内容\n1,很好\n 0 ,差\n", [Column("text", "内容")], "好评", **{"1": "正面", "0": "负面"})
    assert [row.label for row in table.rows] == ["正面", "负面"]


def test_several_inputs(file: Path) -> None:
    table = read(file, "text,style,label\n海,活泼,正面\n", [Column("text", "text"), Column("style", "style")])
    assert table.rows[0].inputs == {"text": "海", "style": "活泼"}


def test_bad_rows_are_told_of_by_line_and_the_others_are_used(file: Path) -> None:
    raw = '正面,好\n中性,还行\n负面\n负面, \n"负"面,差\n负面,差\n'
    table = read(file, "label,text\n" + raw)
    assert [row.line for row in table.rows] == [2, 7]
    for line, words in zip(
        (3, 4, 5, 6), ("'中性'", "1 cells where the header has 2", "text is empty", "no valid CSV"), strict=True
    ):
        (problem,) = [p for p in table.problems if p.startswith(f"line {line}: ")]
        assert words in problem
    assert len(table.problems) == 4 and "--map" in table.problems[0]


def test_a_limit_takes_the_first(file: Path) -> None:
    assert [row.inputs["text"] for row in read(file, "label,text\n正面,a\n?,b\n负面,c\n正面,d\n", limit=2).rows] == [
        "a",
        "c",
    ]


BROKEN = {
    "GBK": ("label,text\n正面,很好\n".encode("gbk"), ["not UTF-8 (line 2)", "GBK", "iconv -f GB18030"]),
    "UTF-16": ("label,text\n正面,很好\n".encode("utf-16"), ["UTF-16", "iconv"]),
    "Big5": ("label,text\n正面,房間很乾淨，早餐也不錯\n".encode("big5"), ["not UTF-8", "Big5", "iconv -f BIG5"]),
    "two encodings": ("label,text\n正面,很好\n".encode() + "负面,不好\n".encode("gbk"), ["line 3 is not UTF-8", "line 2 is"]),
    "neither": (b"label,text\n\xff\xff\xff,a\n", ["not UTF-8 (line 2)"]),
    "no text": ("label,comment\n正面,好\n", ["no column 'text'", "label, comment", "--text-column"]),
    "a slip": ("label,texts\n正面,好\n", ["no column 'text', did you mean texts? it has: label, texts."]),
    "two of them": ("label,text,text\n正面,好,好\n", ["2 columns 'text'"]),
    "nothing": ("", ["no column 'text'"]),
    "a header only": ("label,text\n", ["no row that can be used"]),
    "no good row": ("label,text\n?,b\n", ["no row that can be used", "line 2", "'?'"]),
    "an open quotation mark": ('label,text\n"正面,好\n', ["no row that can be used", "no valid CSV"]),
}  # fmt: skip


@pytest.mark.parametrize(("raw", "words"), BROKEN.values(), ids=BROKEN)
def test_a_file_that_cannot_be_used_says_why_and_what_to_do(file: Path, raw: str | bytes, words: list[str]) -> None:
    with pytest.raises(DataFileError) as raised:
        read(file, raw)
    assert all(word in str(raised.value) for word in words), str(raised.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="No such file"):
        read_table(tmp_path / "none.csv", TEXT, "label", ALLOWED, {})
    with pytest.raises(DataFileError, match="cannot be read"):
        read_table(tmp_path, TEXT, "label", ALLOWED, {})
