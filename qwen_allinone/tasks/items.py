"""A free answer -> the items of a `list` task."""

from __future__ import annotations

import re

# A comma between two digits belongs to a number (1,000).
_SEPARATORS = re.compile(r"[、，；;\n]|(?<!\d),|,(?!\d)")
# `1.` `2、` `（3）` `④` `-` `•` before an item; the dot of 1.5 and the minus of -3 are part of theirs.
_NUMBERING = re.compile(
    r"(?:^|(?<=[\n，,；;、]))[^\S\n]*"
    r"(?:[（(]\d{1,3}[)）]|\d{1,3}(?:[)）、:：．]|\.(?!\d))|[①-⑳]|[*•·▪‣]|[-–—](?!\d))[^\S\n]*",
    re.MULTILINE,
)
_EDGES = " \t\r\u3000。.！!？?：:\"'“”‘’「」《》【】[]`"


def items_of(text: str, most: int) -> tuple[str, ...]:
    """Split `text` at 、，,；; and line breaks into at most `most` items.

    Numbering, bullets, quotes and closing marks go, and so do empty items and those that repeat an earlier one.
    """
    pieces = (piece.strip(_EDGES) for piece in _SEPARATORS.split(_NUMBERING.sub("", text)))
    unique: dict[str, str] = {}
    for piece in pieces:
        if piece:
            unique.setdefault(piece.casefold(), piece)
    return tuple(unique.values())[:most]
