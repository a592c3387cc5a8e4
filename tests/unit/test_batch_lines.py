"""How the lines of a batch's file are told apart: whole, however they arrive, and without holding what is too long."""

from __future__ import annotations

import codecs
import time
import tracemalloc
from collections.abc import Iterator

import pytest

from qwen_allinone.http.batch_lines import Checker, RawLine, split
from qwen_allinone.state import InputLine, LineProblem

MOST = 1000
BLOCK = 65_536
TASK = "/v1/tasks/sentiment"


def good(size: int) -> bytes:
    """A line of `size` bytes that may be asked."""
    start, end = b'{"custom_id": "a", "method": "POST", "url": "/v1/tasks/sentiment", "body": {"text": "', b'"}}'
    return start + b"x" * (size - len(start) - len(end)) + end


@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
@pytest.mark.parametrize("start", [b"", codecs.BOM_UTF8])
def test_lines_are_the_same_in_blocks_of_any_size(size: int, start: bytes) -> None:
    lines = [b"a", b"", b" \r", b"b" * MOST, b"c" * (MOST + 1), b" " * (MOST + 50), b"d\r", b"e" * 3 * MOST, b"f"]
    content = start + b"\n".join(lines)
    found = list(split((content[at : at + size] for at in range(0, len(content), size)), MOST))
    assert [(line.number, line.is_too_long) for line in found] == [
        (1, False), (4, False), (5, True), (7, False), (8, True), (9, False),
    ]  # fmt: skip
    for line in found:
        if not line.is_too_long:
            assert line.raw == lines[line.number - 1] == content[line.start :][: len(line.raw)]


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_a_line_may_have_as_many_bytes_as_a_body_and_not_one_more(mark: bytes) -> None:
    checker = Checker(TASK, [TASK], MOST)
    (line,) = split([mark + good(MOST)], MOST)
    assert checker.check(line) == InputLine(1, "a", len(mark), MOST)
    (line,) = split([mark + good(MOST + 1)], MOST)
    found = checker.check(line)
    assert isinstance(found, LineProblem) and (found.code, found.line) == ("line_too_long", 1)


def test_a_file_of_one_long_line_is_neither_held_nor_copied_again_and_again() -> None:
    """As many blocks as the largest upload has. Copying what is held for each of them took half an hour."""

    def blocks() -> Iterator[bytes]:
        for _ in range(3050):
            yield bytes(BLOCK).replace(b"\0", b"x")
            assert time.monotonic() < ends, "each block takes longer than the one before"
        yield b"\n{}"

    ends = time.monotonic() + 60
    tracemalloc.start()
    try:
        found = list(split(blocks(), 1_000_000))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [(line.number, line.is_too_long) for line in found] == [(1, True), (2, False)]
    assert found[1] == RawLine(2, 3050 * BLOCK + 1, b"{}")
    assert most < 4_000_000
