"""Characters that nobody sees."""

from __future__ import annotations

import unicodedata

# Shown as nothing, though Unicode counts them as letters, symbols and marks: Hangul fillers, the empty Braille pattern,
# the grapheme joiner, Khmer's inherent vowels, variation selectors.
_BLANK = frozenset(
    "\u115f\u1160\u3164\uffa0\u2800\u034f\u17b4\u17b5\u180b\u180c\u180d\u180f"
    + "".join(map(chr, [*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)]))
)


def is_invisible(character: str) -> bool:
    """Whether it is a space, a control or format character, or one of those that are shown as nothing."""
    return character.isspace() or character in _BLANK or unicodedata.category(character) in ("Cc", "Cf")
