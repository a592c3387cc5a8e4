"""CSV files as people have them and as spreadsheets may open them; for the command line and for the web page."""

from __future__ import annotations

import codecs
import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, TextIO

from qwen_allinone.invisible_characters import is_invisible

_DELIMITERS = (",", "\t", ";")
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?[\r\n]+', re.IGNORECASE)  # Excel's own, before the header
_FORMULA = "=+-@"
_BREAKS = "\t\r\n"
_CELL_CHARACTERS = 10_000_000  # a longer cell is a quotation mark that was never closed
_CHUNK = 1 << 20
_CODECS = {"UTF-8": "utf-8-sig", "UTF-16": "utf-16", "GBK": "gb18030"}
MARK = codecs.BOM_UTF8  # by which Excel knows UTF-8
# Lead bytes of punctuation and of the characters in common use.
_COMMON_GBK = (*range(0xA1, 0xA4), *range(0xB0, 0xD8))
_COMMON_BIG5 = range(0xA1, 0xC7)


class UnknownEncoding(ValueError):
    """`line` is the first that is not UTF-8. `likely`: "Big5"; "mixed" where `other_line` is UTF-8; "" if unknown."""

    def __init__(self, line: int, likely: str, other_line: int = 0) -> None:
        super().__init__(f"line {line} is not UTF-8")
        self.line, self.likely, self.other_line = line, likely, other_line


def decode(raw: bytes) -> tuple[str, str]:
    """The text and its encoding: UTF-8 (with or without a byte order mark), UTF-16 (with one) or GBK.

    Raises:
        UnknownEncoding: none of these, several of them in one file, or Big5, which GBK would read as other words.
    """
    encoding = encoding_of(io.BytesIO(raw))
    return raw.decode(_CODECS[encoding]), encoding


def encoding_of(file: BinaryIO) -> str:
    """The encoding of a file that may be larger than memory: read several times over, and left where it began.

    Raises:
        UnknownEncoding: as `decode` does.
    """
    start = file.read(2)
    file.seek(0)
    if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        _check(file, "utf-16")
        return "UTF-16"
    line = _first_line_not_in(file, "utf-8")
    if not line:
        return "UTF-8"
    if other := _line_in_utf8(file):
        raise UnknownEncoding(line, "mixed", other)
    _check(file, "gb18030", line)
    if _looks_like_big5(file):
        raise UnknownEncoding(line, "Big5")
    pairs, common, _ = _pairs(file)
    if 2 * common < pairs:  # an apostrophe of Windows-1252 and the letter behind it are a pair, but an odd one
        raise UnknownEncoding(line, "")
    return "GBK"


def as_text(file: BinaryIO, encoding: str) -> TextIO:
    """The file in one of the encodings that `encoding_of` tells, its line breaks as they are."""
    return io.TextIOWrapper(file, _CODECS[encoding], newline="")


def records(text: str | TextIO) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """Each record, or what is wrong with it, and the line it begins in, from 1; a cell may hold line breaks.

    The delimiter is what a first line `sep=;` says, else the one of comma, tab and semicolon that is there most often.
    """
    csv.field_size_limit(_CELL_CHARACTERS)
    lines = _Lines(io.StringIO(text, newline="") if isinstance(text, str) else text)
    said = _SEPARATOR_LINE.fullmatch(lines.first)
    if said:
        next(lines)
    delimiter = said[1] if said else max(_DELIMITERS, key=lines.first.count)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        line = lines.number + 1
        try:
            yield line, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, error


class _Lines:
    """Lines, counted. One that is no line of a table is not held but passed over: csv.Error."""

    def __init__(self, file: TextIO) -> None:
        self._file, self.number = file, 0
        self.first = self._read()
        self._ahead: str | None = self.first

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line, self._ahead = self._read() if self._ahead is None else self._ahead, None
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) > _CELL_CHARACTERS and line[-1] not in "\r\n":
            while (rest := self._read()) and rest[-1] not in "\r\n":
                pass
            raise csv.Error("a line is larger than the limit of a cell")
        return line

    def _read(self) -> str:
        return self._file.readline(_CELL_CHARACTERS + 1)


def column_names(cells: Sequence[str]) -> tuple[str, ...]:
    """Of a header: each there and each different."""
    names = dict[str, None]()
    for number, cell in enumerate(cells, 1):
        name = " ".join(cell.split()) or f"第 {number} 列"
        names[name if name not in names else f"{name} ({number})"] = None
    return tuple(names)


def fitted(cells: Sequence[str], width: int) -> tuple[str, ...] | None:
    """The record with `width` cells; None where it has others. Empty ones at the end are but commas."""
    if len(cells) < width or any(cell.strip() for cell in cells[width:]):
        return None
    return tuple(cells[:width])


def free_names(names: Sequence[str], taken: Sequence[str]) -> list[str]:
    """The names, changed where the file has columns of that name."""
    return [f"{name} (LLM)" if name in taken else name for name in names]


def encode(rows: Iterable[Iterable[str]]) -> bytes:
    """A whole file: MARK, then the rows."""
    return MARK + encode_rows(rows)


def encode_rows(rows: Iterable[Iterable[str]]) -> bytes:
    """UTF-8; every cell quoted, none of them a formula."""
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows(map(harmless, row) for row in rows)
    return out.getvalue().encode("utf-8", "replace")


def harmless(cell: str) -> str:
    """The cell, with an apostrophe before it where a spreadsheet would compute it: full width and small signs too, and
    behind what cannot be seen."""
    first = next((c for c in cell if c in _BREAKS or not is_invisible(c)), "")
    return f"'{cell}" if first and (first in _BREAKS or unicodedata.normalize("NFKC", first)[0] in _FORMULA) else cell


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    """From the start, cut behind line breaks where there are any; leaves the file at its start."""
    file.seek(0)
    while chunk := file.read(_CHUNK) + file.readline(_CHUNK):
        yield chunk
    file.seek(0)


def _first_line_not_in(file: BinaryIO, codec: str) -> int:
    """0 if all of the file can be read so."""
    decoder, line = codecs.getincrementaldecoder(codec)(), 1
    for chunk in _chunks(file):
        try:
            decoder.decode(chunk)
        except UnicodeDecodeError as error:
            file.seek(0)
            return line + error.object.count(b"\n", 0, error.start)
        line += chunk.count(b"\n")
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return line
    return 0


def _check(file: BinaryIO, codec: str, line: int = 1) -> None:
    """Raises UnknownEncoding, with `line`, unless all of the file can be read so."""
    if _first_line_not_in(file, codec):
        raise UnknownEncoding(line, "Big5" if _looks_like_big5(file) else "")


def _line_in_utf8(file: BinaryIO) -> int:
    """The first line that holds Chinese in UTF-8; 0 if none does. In GBK three such bytes would be odd characters."""
    before = 0
    for chunk in _chunks(file):
        for number, line in enumerate(chunk.split(b"\n"), before + 1):
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError:
                continue
            if any("\u3400" <= character <= "\u9fff" for character in text):
                file.seek(0)
                return number
        before += chunk.count(b"\n")
    return 0


def _looks_like_big5(file: BinaryIO) -> bool:
    """Whether more of the characters would be common ones in Big5 than in GBK."""
    if _first_line_not_in(file, "cp950"):
        return False
    _, common_in_gbk, common_in_big5 = _pairs(file)
    return common_in_big5 > common_in_gbk


def _pairs(file: BinaryIO) -> tuple[int, int, int]:
    """How many pairs of bytes could be a character, and how many would be a common one in GBK, and in Big5."""
    count = common_in_gbk = common_in_big5 = 0
    for chunk in _chunks(file):
        pairs: list[bytes] = re.findall(rb"[\x81-\xfe][\x40-\xfe]", chunk)
        count += len(pairs)
        common_in_gbk += sum(pair[0] in _COMMON_GBK and pair[1] >= 0xA1 for pair in pairs)
        common_in_big5 += sum(pair[0] in _COMMON_BIG5 for pair in pairs)
    return count, common_in_gbk, common_in_big5
