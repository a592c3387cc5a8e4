"""Punctuation between clauses, as people type it."""

from __future__ import annotations

from random import Random


def join(texts: list[str], rng: Random) -> str:
    """Punctuate as people do: mostly commas, sometimes blanks, exclamation marks or nothing."""
    style = rng.choices(("，", "。", " ", "！", "mixed", ""), (50, 6, 7, 4, 30, 3))[0]
    pieces = []
    for text in texts[:-1]:
        gap = rng.choice("，，，，。；！…～") if style == "mixed" else style
        pieces.append(text + gap)
    end = rng.choices(("", "。", "！", "！！！", "～", "…", "......", "?"), (48, 24, 12, 3, 3, 3, 2, 0))[0]
    return "".join([*pieces, texts[-1], end])
