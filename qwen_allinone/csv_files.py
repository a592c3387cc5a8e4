"""CSV files as people have them and as spreadsheets may open them; for the command line and for the web page."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Iterator

from qwen_allinone.invisible_characters import is_invisible

_DELIMITERS = (",", "\t", ";")
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?[\r\n]+', re.IGNORECASE)  # Excel's own, before the header
_FORMULA = "=+-@"
_BREAKS = "\t\r\n"
_CELL_CHARACTERS = 10_000_000  # a longer cell is a quotation mark that was never closed
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
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return _decode_as("utf-16", raw, 1), "UTF-16"
    try:
        return raw.decode("utf-8-sig"), "UTF-8"
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
    if other := _line_in_utf8(raw):
        raise UnknownEncoding(line, "mixed", other)
    text = _decode_as("gb18030", raw, line)
    if _looks_like_big5(raw):
        raise UnknownEncoding(line, "Big5")
    return text, "GBK"


def records(text: str) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """Each record, or what is wrong with it, and the line it begins in, from 1; a cell may hold line breaks.

    The delimiter is what a first line `sep=;` says, else the one of comma, tab and semicolon that is there most often.
    """
    csv.field_size_limit(_CELL_CHARACTERS)
    said = _SEPARATOR_LINE.match(text)
    body = text[said.end() :] if said else text
    delimiter = said[1] if said else max(_DELIMITERS, key=re.split(r"[\r\n]", body, maxsplit=1)[0].count)
    reader = csv.reader(io.StringIO(body, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + (2 if said else 1)
        try:
            yield line, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, error


def encode(rows: Iterable[Iterable[str]]) -> bytes:
    """UTF-8 with the mark by which Excel knows it; every cell quoted, none of them a formula."""
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows(map(harmless, row) for row in rows)
    return out.getvalue().encode("utf-8-sig", "replace")


def harmless(cell: str) -> str:
    """The cell, with an apostrophe before it where a spreadsheet would compute it: full width and small signs too, and
    behind what cannot be seen."""
    first = next((c for c in cell if c in _BREAKS or not is_invisible(c)), "")
    return f"'{cell}" if first and (first in _BREAKS or unicodedata.normalize("NFKC", first)[0] in _FORMULA) else cell


def _decode_as(codec: str, raw: bytes, line: int) -> str:
    try:
        return raw.decode(codec)
    except UnicodeDecodeError:
        raise UnknownEncoding(line, "Big5" if _looks_like_big5(raw) else "") from None


def _line_in_utf8(raw: bytes) -> int:
    """The first line that holds Chinese in UTF-8; 0 if none does. In GBK three such bytes would be odd characters."""
    for number, line in enumerate(raw.split(b"\n"), 1):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            continue
        if any("\u3400" <= character <= "\u9fff" for character in text):
            return number
    return 0


def _looks_like_big5(raw: bytes) -> bool:
    """Whether more of the characters would be common ones in Big5 than in GBK."""
    try:
        raw.decode("cp950")
    except UnicodeDecodeError:
        return False
    pairs: list[bytes] = re.findall(rb"[\x81-\xfe][\x40-\xfe]", raw)
    common_in_gbk = sum(pair[0] in _COMMON_GBK and pair[1] >= 0xA1 for pair in pairs)
    common_in_big5 = sum(pair[0] in _COMMON_BIG5 for pair in pairs)
    return common_in_big5 > common_in_gbk
