"""Labelled data: a CSV, read row by row; what is wrong with a row is said with its line number."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from qwen_allinone.csv_files import UnknownEncoding, decode, records
from qwen_allinone.errors import DataFileError
from qwen_allinone.wording import meant, said


@dataclass(frozen=True)
class Column:
    """Which column holds what: the input's name and the column's."""

    input: str
    name: str


@dataclass(frozen=True)
class Row:
    """One labelled example. `line` is where it begins in the file."""

    line: int
    inputs: Mapping[str, str]
    label: str


@dataclass(frozen=True)
class Table:
    """The good rows of a file, what is wrong with the others, and a hash of the whole file."""

    rows: list[Row]
    problems: list[str]
    sha256: str


def read_table(
    file: Path,
    inputs: Sequence[Column],
    label: str,
    allowed: Sequence[str] | None,
    names: Mapping[str, str],
    limit: int = 0,
) -> Table:
    """Read a CSV with a header. `names` translates the labels of the file into those `allowed`; None: any text is.

    Raises:
        DataFileError: the file cannot be read, is not UTF-8, lacks a column or has no good row.
    """
    raw = _read(file)
    rows: list[Row] = []
    problems: list[str] = []
    for found in _parse(file, _decode(file, raw), inputs, label, allowed, names):
        if isinstance(found, Row):
            rows.append(found)
        else:
            problems.append(found)
        if limit and len(rows) == limit:
            break
    if not rows:
        why = said("because", problem=problems[0]) if problems else said("below_its_header")
        raise DataFileError(said("no_usable_row", file=file, why=why))
    return Table(rows, problems, hashlib.sha256(raw).hexdigest())


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataFileError(said("file_unreadable", file=file, error=error.strerror)) from None


def _decode(file: Path, raw: bytes) -> str:
    """UTF-8, with or without a byte order mark; of other encodings the likely one is named."""
    try:
        text, encoding = decode(raw)
    except UnknownEncoding as error:
        if error.likely == "mixed":
            raise DataFileError(
                said("some_lines_not_utf8", file=file, line=error.line, other_line=error.other_line)
            ) from None
        hint = said("maybe_big5", command=_convert("BIG5", file)) if error.likely == "Big5" else ""
        raise DataFileError(said("line_not_utf8", file=file, line=error.line, hint=hint)) from None
    if encoding == "UTF-8":
        return text
    if encoding == "UTF-16":
        raise DataFileError(said("is_utf_16", file=file, value=_convert("UTF-16", file)))
    line = _first_beyond_ascii(raw)
    raise DataFileError(said("line_not_utf8_maybe_gbk", file=file, line=line, value=_convert("GB18030", file)))


def _first_beyond_ascii(raw: bytes) -> int:
    return next((number for number, line in enumerate(raw.split(b"\n"), 1) if not line.isascii()), 1)


def _convert(encoding: str, file: Path) -> str:
    return f"iconv -f {encoding} -t UTF-8 '{file}' > utf8.csv"


def _parse(
    file: Path, text: str, inputs: Sequence[Column], label: str, allowed: Sequence[str] | None, names: Mapping[str, str]
) -> Iterator[Row | str]:
    lines = records(text)
    number, header = next(lines, (0, []))
    if isinstance(header, csv.Error):
        raise DataFileError(said("line_of_file", file=file, number=number, header=_problem(header)))
    places = _places(file, header, [*(column.name for column in inputs), label])
    for line, cells in lines:
        if isinstance(cells, csv.Error):
            yield said("at_line", line=line, problem=_problem(cells))
            continue
        if not any(cells):
            continue
        if len(cells) != len(header):
            problem = said("cells_differ", count=len(cells), width=len(header))
            yield said("at_line", line=line, problem=problem)
            continue
        given = cells[places[label]].strip()
        gold = names.get(given, given)
        values = {column.input: cells[places[column.name]] for column in inputs}
        empty = next((name for name, value in values.items() if not value.strip()), None)
        if allowed is None and not gold:
            yield said("at_line", line=line, problem=said("cell_empty", name=label))
        elif allowed is not None and gold not in allowed:
            yield said("at_line", line=line, problem=said("label_unknown", label=given[:40], allowed=allowed))
        elif empty:
            yield said("at_line", line=line, problem=said("cell_empty", name=empty))
        else:
            yield Row(line, values, gold)


def _problem(error: csv.Error) -> str:
    return said("no_valid_csv", error=error)


def _places(file: Path, header: Sequence[str], wanted: Sequence[str]) -> dict[str, int]:
    places: dict[str, int] = {}
    for name in wanted:
        count = list(header).count(name)
        if count != 1:
            if count:
                problem = said("columns_of_name", file=file, count=count, name=name)
            else:
                problem = said("no_column_of_name", file=file, name=name, meant=meant(name, header))
            there = list(header) or said("nothing")
            raise DataFileError(said("name_columns", problem=problem, there=there))
        places[name] = list(header).index(name)
    return places
