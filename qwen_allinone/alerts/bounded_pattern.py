"""Regular expressions whose search cannot take long, whatever the text: how often a part may repeat has an end.

Python's engine tries ways one after the other. So a pattern is read here first, and what it could come to is bounded:
the ways through it times the length of the longest.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from itertools import count

from qwen_allinone.strict_yaml import Wrong
from qwen_allinone.wording import said

LOOKED_AT = 2000  # characters of a text, from its beginning
_MOST_STEPS = 10_000  # at one place of a text
_MOST_REPEATS = 200
_DEEPEST = 10
_ESCAPES = "dDwWsSbB"
_SPECIAL = "|)?*+{}"


class PatternError(Wrong):
    """A pattern that is not taken."""


@dataclass(frozen=True)
class BoundedPattern:
    """Upper and lower case are the same."""

    source: str
    expression: re.Pattern[str]

    def is_in(self, text: str) -> bool:
        return self.expression.search(text[:LOOKED_AT]) is not None


@dataclass(frozen=True)
class _Size:
    """Of a part of a pattern: the ways through it, and the lengths of what it fits, in characters."""

    ways: int = 1
    shortest: int = 0
    longest: int = 0

    def then(self, other: _Size) -> _Size:
        return _Size(self.ways * other.ways, self.shortest + other.shortest, self.longest + other.longest)

    def or_else(self, other: _Size) -> _Size:
        return _Size(self.ways + other.ways, min(self.shortest, other.shortest), max(self.longest, other.longest))

    def repeated(self, least: int, most: int) -> _Size:
        ways = 0
        for times in range(least, most + 1):
            ways += self.ways**times
            if ways > _MOST_STEPS:
                break
        return _Size(ways, self.shortest * least, self.longest * most)


def bounded(source: str) -> BoundedPattern:
    """Read a pattern.

    Raises:
        PatternError: it is none, has what cannot be bounded, could take too long, or fits every text.
    """
    size = _Reader(source).read()
    if not size.shortest:
        raise PatternError(said("pattern_fits_all"), said("need_a_part"))
    if size.ways * size.longest > _MOST_STEPS:
        raise PatternError(said("pattern_steps", steps=size.ways * size.longest, most=_MOST_STEPS), said("repeat_less"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return BoundedPattern(source, re.compile(source, re.IGNORECASE))
    except (re.error, Warning, OverflowError) as error:
        raise PatternError(said("no_regular_expression", error=error), said("correct_it")) from None


class _Reader:
    """Reads a pattern from left to right."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._at = 0

    def read(self) -> _Size:
        size = self._choices(_DEEPEST)
        if self._at < len(self._source):
            raise self._wrong(said("no_partner"), said("backslash_if_meant"))
        return size

    @property
    def _next(self) -> str:
        return self._source[self._at : self._at + 1]

    def _choices(self, depth: int) -> _Size:
        size = self._sequence(depth)
        while self._next == "|":
            self._at += 1
            size = size.or_else(self._sequence(depth))
        return size

    def _sequence(self, depth: int) -> _Size:
        size = _Size()
        while self._next and self._next not in "|)":
            size = size.then(self._repeats(self._part(depth)))
            if size.ways > _MOST_STEPS:
                raise PatternError(said("pattern_ways"), said("repeat_less"))
        return size

    def _part(self, depth: int) -> _Size:
        found = self._next
        if found == "(":
            return self._group(depth)
        if found == "[":
            self._class()
            return _Size(1, 1, 1)
        if found == "\\":
            return self._escape()
        if found in _SPECIAL:
            raise self._wrong(said("nothing_to_repeat"), said("backslash_before"))
        self._at += 1
        return _Size() if found in "^$" else _Size(1, 1, 1)

    def _group(self, depth: int) -> _Size:
        if not depth:
            raise self._wrong(said("pattern_deep"), said("write_flatter"))
        self._at += 1
        if self._source.startswith("?:", self._at):
            self._at += 2
        elif self._next == "?":
            raise self._wrong(said("group_special"), said("group_form"))
        size = self._choices(depth - 1)
        if self._next != ")":
            raise PatternError(said("group_open"), said("close_group"))
        self._at += 1
        return size

    def _class(self) -> None:
        """Past a [class]; what is in it is Python's to judge."""
        end = self._at + 1
        end += self._source.startswith("^", end)
        for at in count(end):
            found = self._source[at : at + 1]
            if not found:
                raise PatternError(said("class_open"), said("close_class"))
            if found == "]" and at > end and not self._is_escaped(at):
                self._at = at + 1
                return

    def _is_escaped(self, at: int) -> bool:
        before = self._source[:at]
        return (len(before) - len(before.rstrip("\\"))) % 2 == 1

    def _escape(self) -> _Size:
        found = self._source[self._at + 1 : self._at + 2]
        if not found or (found.isalnum() and found not in _ESCAPES):
            raise self._wrong(
                said("escape_unknown", found=found or said("the_end")), said("escape_form", known=" ".join(_ESCAPES))
            )
        self._at += 2
        return _Size() if found in "bB" else _Size(1, 1, 1)

    def _repeats(self, size: _Size) -> _Size:
        found = self._next
        if found in ("*", "+"):
            example = "{0,20}" if found == "*" else "{1,20}"
            raise self._wrong(said("repeats_endlessly"), said("say_how_often", example=example))
        if found == "?":
            self._at += 1
            least, most = 0, 1
        elif found == "{":
            least, most = self._braces()
        else:
            return size
        if self._next in ("?", "*", "+", "{"):
            raise self._wrong(said("repeats_twice"), said("write_one"))
        return size.repeated(least, most)

    def _braces(self) -> tuple[int, int]:
        match = re.compile(r"\{(\d{1,4})(?:,(\d{1,4}))?\}", re.ASCII).match(self._source, self._at)
        if not match:
            raise self._wrong(said("times_unclear"), said("times_form"))
        least, most = int(match[1]), int(match[2] or match[1])
        if not least <= most <= _MOST_REPEATS:
            raise self._wrong(said("times_wrong"), said("least_and_most", most=_MOST_REPEATS))
        self._at = match.end()
        return least, most

    def _wrong(self, problem: str, fix: str) -> PatternError:
        return PatternError(said("pattern_at", sign=self._next, place=self._at + 1, problem=problem), fix)
