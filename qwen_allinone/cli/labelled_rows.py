"""Labelled data: a CSV, read row by row; what is wrong with a row is said with its line number."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qwen_allinone.errors import DataFileError

if TYPE_CHECKING:
    import _csv

_FIELD_BYTES = 10_000_000  # a longer cell is a quotation mark that was never closed


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
    file: Path, inputs: Sequence[Column], label: str, allowed: Sequence[str], names: Mapping[str, str], limit: int = 0
) -> Table:
    """Read a CSV with a header. `names` translates the labels of the file into those `allowed`.

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
        why = f": {problems[0]}" if problems else " below its header"
        raise DataFileError(f"{file} has no row that can be used{why}")
    return Table(rows, problems, hashlib.sha256(raw).hexdigest())


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataFileError(f"{file} cannot be read: {error.strerror}") from None


def _decode(file: Path, raw: bytes) -> str:
    """UTF-8, with or without a byte order mark; of other encodings the likely one is named."""
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataFileError(f"{file} is UTF-16; save it as UTF-8, e.g. with: {_convert('UTF-16', file)}")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
    try:
        raw.decode("gb18030")
    except UnicodeDecodeError:
        raise DataFileError(f"{file} is not UTF-8 (line {line}); save it as UTF-8") from None
    hint = f"it may be GBK: {_convert('GB18030', file)}"
    raise DataFileError(f"{file} is not UTF-8 (line {line}); save it as UTF-8, {hint}") from None


def _convert(encoding: str, file: Path) -> str:
    return f"iconv -f {encoding} -t UTF-8 '{file}' > utf8.csv"


def _parse(
    file: Path, text: str, inputs: Sequence[Column], label: str, allowed: Sequence[str], names: Mapping[str, str]
) -> Iterator[Row | str]:
    csv.field_size_limit(_FIELD_BYTES)
    lines = _numbered(csv.reader(io.StringIO(text, newline=""), strict=True))
    _, header = next(lines, (0, []))
    if isinstance(header, str):
        raise DataFileError(f"{file}: line 1: {header}")
    places = _places(file, header, [*(column.name for column in inputs), label])
    for line, cells in lines:
        if isinstance(cells, str):
            yield f"line {line}: {cells}"
            continue
        if not any(cells):
            continue
        if len(cells) != len(header):
            yield f"line {line}: {len(cells)} cells where the header has {len(header)}"
            continue
        given = cells[places[label]].strip()
        gold = names.get(given, given)
        values = {column.input: cells[places[column.name]] for column in inputs}
        empty = next((name for name, value in values.items() if not value.strip()), None)
        if gold not in allowed:
            yield f"line {line}: the label {given[:40]!r} is none of {', '.join(allowed)}; --map translates labels"
        elif empty:
            yield f"line {line}: {empty} is empty"
        else:
            yield Row(line, values, gold)


def _numbered(reader: _csv.Reader) -> Iterator[tuple[int, list[str] | str]]:
    """Each record, or what is wrong with it, and the line it begins in; a cell may hold line breaks."""
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, f"no valid CSV ({error})"
        else:
            yield line, cells


def _places(file: Path, header: Sequence[str], wanted: Sequence[str]) -> dict[str, int]:
    places: dict[str, int] = {}
    for name in wanted:
        count = list(header).count(name)
        if count != 1:
            problem = "no column" if not count else f"{count} columns"
            raise DataFileError(
                f"{file} has {problem} {name!r}; it has: {', '.join(header) or 'nothing'}. "
                "Name yours with --text-column and --label-column"
            )
        places[name] = list(header).index(name)
    return places
