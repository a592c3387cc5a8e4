"""CSV files of feedback: reading what people export, writing what opens safely in a spreadsheet. No Gradio, no HTTP."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qwen_allinone import csv_files

_SAVE_AS = "请在表格软件里另存为“CSV UTF-8”后再试"
_ENCODINGS = {
    "": f"文件既不是 UTF-8 也不是 GBK 编码的文本，{_SAVE_AS}",
    "Big5": f"文件像是 Big5 编码（第 {{0}} 行），{_SAVE_AS}",
    "mixed": f"第 {{0}} 行不是 UTF-8，第 {{1}} 行却是：一个文件里混有两种编码，{_SAVE_AS}",
}


class Unreadable(Exception):
    """Nothing can be made of the file; the message, in Chinese, says what to do."""


@dataclass(frozen=True)
class Row:
    """One record, and the line of the file it begins in, from 1."""

    line: int
    cells: tuple[str, ...]


@dataclass(frozen=True)
class BadRow:
    """A record that was left out."""

    line: int
    reason: str


@dataclass(frozen=True)
class Sheet:
    """A file as read. `beyond` counts the records past the most that are taken."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    bad: tuple[BadRow, ...]
    encoding: str
    beyond: int

    def likely_column(self) -> int:
        """The column that holds the feedback: the one with the longest texts."""
        sample = self.rows[:100]
        return max(range(len(self.columns)), key=lambda column: sum(len(row.cells[column]) for row in sample))


def read(data: bytes, *, header: bool, most: int) -> Sheet:
    """Read at most `most` records.

    Raises:
        Unreadable: an unknown encoding, or no record at all.
    """
    text, encoding = _decode(data)
    rows, bad = _records(text)
    if not rows:
        raise Unreadable(
            "文件里没有数据，请选择有内容的 CSV 文件" if not bad else f"第 {bad[0].line} 行：{bad[0].reason}"
        )
    first = rows.pop(0) if header else None
    columns = _names(first.cells if first else ("",) * len(rows[0].cells))
    good: list[Row] = []
    for row in rows:
        if fitted := _fit(row, len(columns)):
            good.append(fitted)
        else:
            bad.append(BadRow(row.line, f"有 {len(row.cells)} 列，应为 {len(columns)} 列"))
    if not good:
        raise Unreadable("除列名外没有可用的数据行" if header else "没有可用的数据行")
    return Sheet(columns, tuple(good[:most]), tuple(sorted(bad, key=lambda b: b.line)), encoding, len(good[most:]))


def write(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    """As a spreadsheet opens it safely."""
    return csv_files.encode([columns, *rows])


def _decode(data: bytes) -> tuple[str, str]:
    try:
        text, name = csv_files.decode(data)
    except csv_files.UnknownEncoding as error:
        raise Unreadable(_ENCODINGS[error.likely].format(error.line, error.other_line)) from None
    if "\0" in text:
        raise Unreadable(_ENCODINGS[""])
    return text, name


def _records(text: str) -> tuple[list[Row], list[BadRow]]:
    """Records with the line each begins in; empty lines are none."""
    rows: list[Row] = []
    bad: list[BadRow] = []
    for line, cells in csv_files.records(text):
        if isinstance(cells, csv.Error):
            bad.append(BadRow(line, "单元格太长" if "limit" in str(cells) else "引号没有配对，无法分列"))
        elif any(cell.strip() for cell in cells):
            rows.append(Row(line, tuple(cells)))
    return rows, bad


def _names(cells: Sequence[str]) -> tuple[str, ...]:
    """Column names, each there and each different."""
    names: list[str] = []
    for number, cell in enumerate(cells, 1):
        name = " ".join(cell.split()) or f"第 {number} 列"
        names.append(name if name not in names else f"{name} ({number})")
    return tuple(names)


def _fit(row: Row, width: int) -> Row | None:
    """The record with `width` cells; None where it has others. Empty ones at the end are but commas."""
    extra = row.cells[width:]
    if len(row.cells) < width or any(cell.strip() for cell in extra):
        return None
    return Row(row.line, row.cells[:width])
