"""CSV files of feedback: reading what people export, writing what opens safely in a spreadsheet. No Gradio, no HTTP."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from qwen_allinone import csv_files, feedback_columns

_SAVE_AS = "请在表格软件里另存为“CSV UTF-8”后再试"
_ENCODINGS = {
    "": f"文件既不是 UTF-8 也不是 GBK 编码的文本，{_SAVE_AS}",
    "Big5": f"文件像是 Big5 编码（第 {{0}} 行），{_SAVE_AS}",
    "mixed": f"第 {{0}} 行不是 UTF-8，第 {{1}} 行却是：一个文件里混有两种编码，{_SAVE_AS}",
}
_MOST_COLUMNS = 1000


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
        """The column that holds the feedback."""
        return feedback_columns.likely_text(self.columns, [row.cells for row in self.rows[:100]])

    def has_text(self) -> bool:
        """Whether the likely column holds any: numbers and dates alone are no feedback."""
        column = self.likely_column()
        return feedback_columns.holds_text(row.cells[column] for row in self.rows[:100])


def read(data: bytes, *, header: bool, most: int) -> Sheet:
    """Read at most `most` records.

    Raises:
        Unreadable: an unknown encoding, or no record at all.
    """
    text, encoding = _decode(data)
    columns: tuple[str, ...] | None = None
    good, bad, beyond = list[Row](), list[BadRow](), 0
    for row in _records(text):
        if isinstance(row, BadRow):
            bad.append(row)
            continue
        if columns is None:
            columns = _names(row.cells if header else ("",) * len(row.cells))
            if header:
                continue
        if (cells := csv_files.fitted(row.cells, len(columns))) is None:
            bad.append(BadRow(row.line, f"有 {len(row.cells)} 列，应为 {len(columns)} 列"))
        elif len(good) < most:
            good.append(Row(row.line, cells))
        else:
            beyond += 1
    if columns is None:
        raise Unreadable(
            "文件里没有数据，请选择有内容的 CSV 文件" if not bad else f"第 {bad[0].line} 行：{bad[0].reason}"
        )
    if not good:
        raise Unreadable("除列名外没有可用的数据行" if header else "没有可用的数据行")
    return Sheet(columns, tuple(good), tuple(bad), encoding, beyond)


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


def _records(text: str) -> Iterator[Row | BadRow]:
    """Records with the line each begins in; empty lines are none."""
    for line, cells in csv_files.records(text):
        if isinstance(cells, csv.Error):
            yield BadRow(line, "单元格太长" if "limit" in str(cells) else "引号没有配对，无法分列")
        elif any(cell.strip() for cell in cells):
            yield Row(line, tuple(cells))


def _names(cells: Sequence[str]) -> tuple[str, ...]:
    """Column names; raises Unreadable for more than a table has."""
    if len(cells) > _MOST_COLUMNS:
        raise Unreadable(f"第一行有 {len(cells)} 列，最多 {_MOST_COLUMNS} 列，请检查分隔符")
    return csv_files.column_names(cells)
