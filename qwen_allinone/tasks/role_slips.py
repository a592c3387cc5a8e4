"""Lines of a prompt that begin with what is nearly a role: `Assistant:`, `assistent:`, `user：`."""

from __future__ import annotations

import re
from typing import NamedTuple

_ROLE_LINE = re.compile(r"(system|user|assistant):")
_LIKE_ONE = re.compile(r"^([A-Za-z]+)[ \t]*[:：]", re.MULTILINE)
_OFF = {"system": 2, "user": 1, "assistant": 2}  # letters: of four, two others make many a word
# As near, and words by themselves.
_WORDS = frozenset({"use", "used", "uses", "users", "usher", "stem", "systems", "systemd", "assistants", "assistance"})


class RoleSlip(NamedTuple):
    """What the line begins with, which role is meant, and the line, counted from 1."""

    written: str
    role: str
    line: int


def role_slip(text: str) -> RoleSlip | None:
    """The first line that begins with a slip in a role; None if none does. What is no line of its own is none."""
    for match in _LIKE_ONE.finditer(text):
        role = _role_meant(match[1])
        if role and not _ROLE_LINE.match(text, match.start()):
            return RoleSlip(match[0], role, text.count("\n", 0, match.start()) + 1)
    return None


def _role_meant(word: str) -> str | None:
    """The role that `word` is, or is a slip of, in small letters; None for other words."""
    word = word.casefold()
    if word in _WORDS:
        return None
    return next((role for role, most in _OFF.items() if word[0] == role[0] and _distance(word, role) <= most), None)


def _distance(one: str, other: str) -> int:
    """Letters to add, take away, exchange or swap with their neighbour until both are the same (Damerau, 1964)."""
    if abs(len(one) - len(other)) > 2:
        return 3  # or more, and words may be long
    before, row = list[int](), list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        two_before, before, row = before, row, [i]
        for j, wanted in enumerate(other, 1):
            steps = [before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != wanted)]
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == wanted:
                steps.append(two_before[j - 2] + 1)
            row.append(min(steps))
    return row[-1]
