"""All files of a run as one table: which columns hold what, how many rows there are, which numbers come twice."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from qwen_allinone import feedback_columns
from qwen_allinone.desk.places import File
from qwen_allinone.desk.sources import Row, Source, open_source
from qwen_allinone.errors import DataFileError
from qwen_allinone.wording import meant, said

_SAMPLE = 100
_MOST_TOLD = 5


@dataclass(frozen=True)
class Columns:
    """The names of the columns that hold what people say, when, of what, how many stars, and the row's own number;
    empty for what no column holds. Before the files are looked at: those that the user named."""

    text: str = ""
    date: str = ""
    product: str = ""
    rating: str = ""
    number: str = ""


NONE = "-"  # what a user writes who wants no such column


@dataclass(frozen=True)
class Feedback:
    """A row with what its columns hold."""

    file: str
    row: Row
    text: str
    date: str
    product: str
    rating: str
    cells: tuple[str, ...]  # in the order of the table's columns


@dataclass(frozen=True)
class Table:
    """All rows of all files, in order; read anew each time. `columns` are those of all files."""

    sources: tuple[Source, ...]
    columns: tuple[str, ...]
    chosen: Columns

    def rows(self) -> Iterator[Feedback]:
        for source in self.sources:
            places = {name: source.columns.index(name) for name in self.columns if name in source.columns}
            for row in source.rows():
                yield _feedback(source, row, places, self.columns, self.chosen)

    def fingerprint(self) -> list[dict[str, str]]:
        """By which the same files are known again; all of them are read for it."""
        return [{"name": source.path.name, "sha256": source.sha256()} for source in self.sources]


@dataclass(frozen=True)
class Survey:
    """What a walk over all rows tells. `problems` and `doubles`: how many; `told`: some of them, by line."""

    rows: int
    problems: int
    doubles: int
    told: tuple[str, ...]


def open_table(paths: Sequence[File], named: Columns) -> Table:
    """Open the files and find their columns.

    Raises:
        DataFileError: a file cannot be read, or has no such column.
    """
    sources = tuple(open_source(path) for path in paths)
    columns = tuple(dict.fromkeys(name for source in sources for name in source.columns))
    chosen = _choose(sources, named)
    for source in sources:
        if chosen.text not in source.columns:
            raise DataFileError(
                said(
                    "column_not_in_all",
                    path=source.path,
                    text=chosen.text,
                    path2=sources[0].path,
                    columns=source.columns,
                )
            )
    return Table(sources, columns, chosen)


def survey(table: Table) -> Survey:
    """Walk over all rows: 24 bytes are kept of each, to find the numbers that come twice."""
    hashes, ordinals, lines = array("Q"), array("Q"), array("Q")
    count = problems = 0
    told: list[str] = []
    for count, feedback in enumerate(table.rows(), 1):
        row = feedback.row
        if row.problem:
            problems += 1
            if problems <= _MOST_TOLD:
                told.append(said("row_told", file=feedback.file, line=row.line, problem=row.problem))
        elif number := _cell_of(feedback, table, table.chosen.number).strip():
            hashes.append(
                int.from_bytes(hashlib.blake2b(number.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
            )
            ordinals.append(count)
            lines.append(row.line)
    doubles, pairs = _doubles(hashes, lines)
    name = table.chosen.number
    told += [said("number_again", line=again, name=name, first=first) for first, again in pairs]
    return Survey(count, problems, doubles, tuple(told))


def _doubles(hashes: Sequence[int], lines: Sequence[int]) -> tuple[int, list[tuple[int, int]]]:
    """How many numbers have been there before, and the lines of the first of them."""
    if not hashes:
        return 0, []
    values = np.asarray(hashes, dtype=np.uint64)
    order = np.argsort(values, kind="stable")
    again = np.flatnonzero(values[order][1:] == values[order][:-1])
    pairs = sorted((int(order[i]), int(order[i + 1])) for i in again[:_MOST_TOLD])
    return len(again), [(lines[first], lines[second]) for first, second in pairs]


def _cell_of(feedback: Feedback, table: Table, name: str) -> str:
    return feedback.cells[table.columns.index(name)] if name else ""


def _feedback(source: Source, row: Row, places: Mapping[str, int], columns: Sequence[str], chosen: Columns) -> Feedback:
    def cell(name: str) -> str:
        return row.cells[places[name]] if name in places else ""

    return Feedback(
        file=source.path.name,
        row=row,
        text=cell(chosen.text).strip(),
        date=cell(chosen.date),
        product=cell(chosen.product).strip(),
        rating=cell(chosen.rating),
        cells=tuple(map(cell, columns)),
    )


def _choose(sources: Sequence[Source], named: Columns) -> Columns:
    """What the user named, and a guess at the others by the first file; what that has none of, by the next."""
    guesses = [_guess(source, named) for source in sources]

    def choose(kind: str, flag: str) -> str:
        name = str(getattr(named, kind))
        if name == NONE and kind != "text":
            return ""
        if not name:
            return next((guess for found in guesses if (guess := str(getattr(found, kind)))), "")
        there = list(dict.fromkeys(column for source in sources for column in source.columns))
        if name not in there:
            raise DataFileError(said("no_such_column", name=name, name2=meant(name, there), there=there, flag=flag))
        return name

    text = choose("text", "--text")
    if not text:
        raise DataFileError(said("no_text_column", path=sources[0].path, columns=sources[0].columns))
    return Columns(
        text=text,
        date=choose("date", "--date"),
        product=choose("product", "--product"),
        rating=choose("rating", "--rating"),
        number=choose("number", "--id"),
    )


def _guess(source: Source, named: Columns) -> Columns:
    """By the names of the columns and by what the first rows hold; a column that the user named is taken. Where none of
    them holds a text, none is guessed for it."""
    columns = source.columns
    sample = [row.cells for row in islice(source.rows(), _SAMPLE) if not row.problem]
    names = (named.text, named.date, named.product, named.rating, named.number)
    taken = {columns.index(name) for name in names if name in columns}
    text = feedback_columns.likely_text(columns, sample)
    if not named.text:
        taken.add(text)
    found = list[str]()
    for likely in (
        feedback_columns.likely_date,
        feedback_columns.likely_product,
        feedback_columns.likely_rating,
        feedback_columns.likely_number,
    ):
        place = likely(columns, sample, taken)
        found.append("" if place is None else columns[place])
    holds_text = not sample or feedback_columns.holds_text(cells[text] for cells in sample)
    return Columns(columns[text] if holds_text else "", *found)
