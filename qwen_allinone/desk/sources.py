"""Files of feedback as streams of rows: CSV, JSONL, Excel, Parquet. None of them is ever held as a whole."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from qwen_allinone import csv_files
from qwen_allinone.desk.places import File, openable
from qwen_allinone.errors import DataFileError
from qwen_allinone.wording import said

_LINE_BYTES = 64_000_000  # of JSON; a longer line is no row
_BATCH = 512
_MOST_COLUMNS = 1000
_EXTRA = said("install_or_csv")


@dataclass(frozen=True)
class Row:
    """One row. `line` is where it begins in the file, from 1. `problem`, Chinese in the report: why it cannot be asked
    about; it keeps its place, so that nothing is lost."""

    line: int
    cells: tuple[str, ...]
    problem: str = ""


@dataclass(frozen=True)
class Source:
    """A file that can be read again and again, always with the same rows; `note` is worth telling of it."""

    path: File
    columns: tuple[str, ...]
    note: str
    _read: Callable[[], Iterator[Row]]

    def rows(self) -> Iterator[Row]:
        """From the beginning; raises DataFileError where the file cannot be read any further."""
        try:
            yield from self._read()
        except OSError as error:
            raise _unreadable(self.path, error) from None

    def sha256(self) -> str:
        """By which the file is known again."""
        try:
            with self.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise _unreadable(self.path, error) from None


def open_source(path: File) -> Source:
    """The file, read as its ending says.

    Raises:
        DataFileError: it cannot be read, is of no kind that is known, or has neither columns nor rows.
    """
    kinds = {
        ".csv": _csv, ".tsv": _csv, ".txt": _csv, ".jsonl": _jsonl, ".ndjson": _jsonl, ".xlsx": _excel,
        ".parquet": _parquet,
    }  # fmt: skip
    kind = kinds.get(path.suffix.lower())
    if kind is None:
        raise DataFileError(said("file_kind_unknown", path=path, kinds=kinds))
    try:
        source = kind(path)
    except OSError as error:
        raise _unreadable(path, error) from None
    if not source.columns:
        raise DataFileError(said("file_without_rows", path=path))
    if len(source.columns) > _MOST_COLUMNS:
        raise DataFileError(said("too_many_columns", path=path, count=len(source.columns), most_columns=_MOST_COLUMNS))
    return source


def _unreadable(path: File, error: OSError) -> DataFileError:
    return DataFileError(said("file_unreadable", file=path, error=error.strerror or error))


def _csv(path: File) -> Source:
    encoding = _encoding(path)
    with _text(path, encoding) as file:
        first = next(_records(file), None)
    line, header = first or (0, [])
    if isinstance(header, csv.Error):
        raise DataFileError(said("csv_invalid", path=path, line=line, header=header))
    columns = csv_files.column_names(header)

    def read() -> Iterator[Row]:
        with _text(path, encoding) as file:
            records = _records(file)
            next(records, None)
            for line, cells in records:
                yield _csv_row(line, cells, len(columns))

    return Source(path, columns, "" if encoding == "UTF-8" else encoding, read)


def _text(path: File, encoding: str) -> TextIO:
    return csv_files.as_text(path.open("rb"), encoding)


def _encoding(path: File) -> str:
    try:
        with path.open("rb") as file:
            return csv_files.encoding_of(file)
    except csv_files.UnknownEncoding as error:
        why = {
            "mixed": said("two_encodings", line=error.other_line),
            "Big5": said("likely_big5"),
        }.get(error.likely, said("encoding_unknown"))
        raise DataFileError(said("source_line_not_utf8", path=path, line=error.line, why=why)) from None


def _records(file: TextIO) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """Records but for empty ones, which are none."""
    for line, cells in csv_files.records(file):
        if isinstance(cells, csv.Error) or any(cell.strip() for cell in cells):
            yield line, cells


def _csv_row(line: int, cells: list[str] | csv.Error, width: int) -> Row:
    """A record that is none keeps what can be kept of it."""
    if isinstance(cells, csv.Error):
        why = said("cell_too_long") if "limit" in str(cells) else said("quotes_open")
        return Row(line, ("",) * width, why)
    if fitted := csv_files.fitted(cells, width):
        return Row(line, fitted)
    kept = (*cells, *[""] * width)[:width]
    over = said("cells_over", cells=cells[width:]) if len(cells) > width else ""
    return Row(line, kept, said("row_width", count=len(cells), width=width, over=over))


def _jsonl(path: File) -> Source:
    names: dict[str, None] = {}
    for _, value in _json_lines(path):
        if isinstance(value, dict):
            names.update(dict.fromkeys(value))
            if len(names) > _MOST_COLUMNS:
                break
    columns = tuple(names)

    def read() -> Iterator[Row]:
        for line, value in _json_lines(path):
            if isinstance(value, dict):
                yield Row(line, tuple(_cell(value.get(name)) for name in columns))
            else:
                yield Row(line, ("",) * len(columns), value)

    return Source(path, columns, "", read)


def _json_lines(path: File) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """The object of each line, or what is wrong with it; empty lines are none."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(_LINE_BYTES):
            number += 1
            if len(line) == _LINE_BYTES and not line.endswith(b"\n"):
                while (rest := file.readline(_LINE_BYTES)) and not rest.endswith(b"\n"):
                    pass
                yield number, said("line_endless")
            elif line.strip():
                yield number, _json_object(line)


def _json_object(line: bytes) -> dict[str, Any] | str:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return said("line_no_utf8")
    except (ValueError, RecursionError):
        return said("line_no_json")
    return value if isinstance(value, dict) else said("line_no_object")


def _excel(path: File) -> Source:
    try:
        import openpyxl
    except ImportError:
        raise DataFileError(said("excel_needs_openpyxl", path=path, extra=_EXTRA)) from None

    def cells() -> Iterator[tuple[int, tuple[Any, ...]]]:
        """Of the sheet that is in front when the file is opened; of formulas what they came to."""
        try:
            book = openpyxl.load_workbook(openable(path), read_only=True, data_only=True)
        except OSError:
            raise
        except Exception as error:  # whatever a broken archive leads to
            raise DataFileError(said("excel_invalid", path=path, name=type(error).__name__, error=error)) from None
        sheet = book.active
        sheet.reset_dimensions()  # what a file says of its size need not be so; there may be more rows and columns
        try:
            for line, row in enumerate(sheet.iter_rows(values_only=True), 1):
                if any(_cell(cell).strip() for cell in row):
                    yield line, row
        finally:
            book.close()

    _, header = next(cells(), (0, ()))
    columns = csv_files.column_names([_cell(cell) for cell in _without_empty_end(header)])

    def read() -> Iterator[Row]:
        rows = cells()
        next(rows, None)
        for line, row in rows:
            yield _csv_row(line, [_cell(cell) for cell in _padded(row, len(columns))], len(columns))

    return Source(path, columns, "", read)


def _without_empty_end(cells: Sequence[Any]) -> Sequence[Any]:
    width = max((number for number, cell in enumerate(cells, 1) if _cell(cell).strip()), default=0)
    return cells[:width]


def _padded(row: Sequence[Any], width: int) -> Sequence[Any]:
    """Excel leaves out empty cells at the end."""
    return (*row, *[None] * (width - len(row)))


def _parquet(path: File) -> Source:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise DataFileError(said("parquet_needs_pyarrow", path=path, extra=_EXTRA)) from None

    def read_columns() -> tuple[str, ...]:
        with parquet.ParquetFile(openable(path)) as file:
            return csv_files.column_names(file.schema_arrow.names)

    def read() -> Iterator[Row]:
        line = 0
        with parquet.ParquetFile(openable(path)) as file:
            for batch in file.iter_batches(batch_size=_BATCH):
                for cells in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    line += 1
                    yield Row(line, tuple(map(_cell, cells)))

    try:
        return Source(path, read_columns(), "", read)
    except pyarrow.ArrowException as error:
        raise DataFileError(said("parquet_invalid", path=path, error=error)) from None


def _cell(value: Any) -> str:
    """As a table shows it."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, dict | list | tuple | bool):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)
