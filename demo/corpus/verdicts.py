"""Replies of an earlier model to messages of the corpus, and which of them fit, as readers found who saw nothing else.

A file of `verdicts/` is a table: what the user says, the mood that the reply was told, the reply, 1 or 0, and why not.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path

from demo.corpus.dialogues import MOODS

HERE = Path(__file__).parent / "verdicts"
COLUMNS = ("text", "mood", "reply", "fits", "why")


@dataclass
class Judged:
    """What a user says, told as `mood`, and replies to it, without their ends."""

    text: str
    mood: str
    fitting: list[str] = field(default_factory=list)
    unfit: list[str] = field(default_factory=list)


def read_verdicts(folder: Path = HERE) -> list[Judged]:
    """All of them, by text, in the files' order; raises ValueError with file and line for what is none."""
    found: dict[str, Judged] = {}
    for path in sorted(folder.glob("*.tsv")):
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            if tuple(next(rows, ())) != COLUMNS:
                raise ValueError(f"{path.name}:1: the columns have to be {', '.join(COLUMNS)}")
            for number, row in enumerate(rows, 2):
                if (
                    len(row) != len(COLUMNS)
                    or row[1] not in MOODS
                    or row[3] not in ("0", "1")
                    or not (row[0] and row[2])
                ):
                    raise ValueError(f"{path.name}:{number}: text, mood, reply, 1 or 0, and why not are wanted")
                text, mood, reply, fits, _ = row
                judged = found.setdefault(text, Judged(text, mood))
                (judged.fitting if fits == "1" else judged.unfit).append(reply)
    return list(found.values())
