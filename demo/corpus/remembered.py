"""What is remembered of a user, what he says, and which of it matters then; read strictly.

A file of `remembered/` is a table: statements with `BETWEEN` between them, the text, the number of the statement that
matters or 0, and the mood of the text.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from demo.corpus.dialogues import MOODS, Dialogue

HERE = Path(__file__).parent / "remembered"
COLUMNS = ("memories", "text", "matters", "mood")
BETWEEN, ABOUT = "；", "用户"


@dataclass(frozen=True)
class Remembered:
    """`matters` is one of the memories, "" if none of them has to do with the text."""

    memories: tuple[str, ...]
    text: str
    matters: str
    mood: str


def read_remembered(folder: Path = HERE) -> list[Remembered]:
    """All, in the order of the files' names; raises ValueError for a row that is none, with file and line."""
    found = list[Remembered]()
    for path in sorted(folder.glob("*.tsv")):
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            if tuple(next(rows, ())) != COLUMNS:
                raise ValueError(f"{path.name}:1: the columns have to be {', '.join(COLUMNS)}")
            for number, row in enumerate(rows, 2):
                one = _read(row)
                if one is None:
                    raise ValueError(f"{path.name}:{number}: statements, text, number of one or 0, and mood are wanted")
                found.append(one)
    return found


def of_dialogues(dialogues: Sequence[Dialogue]) -> list[Remembered]:
    """Those of the written conversations of one turn whose user is known."""
    return [
        Remembered(dialogue.memories, text, turn.recall, turn.mood)
        for dialogue in dialogues
        if dialogue.memories and len(dialogue.turns) == 1
        for turn in dialogue.turns
        for text in turn.texts[:1]
    ]


def _read(row: Sequence[str]) -> Remembered | None:
    if len(row) != len(COLUMNS):
        return None
    memories, text, number, mood = tuple(row[0].split(BETWEEN)), *row[1:]
    if number not in map(str, range(len(memories) + 1)) or mood not in MOODS or not text.strip():
        return None
    if not all(memory.startswith(ABOUT) for memory in memories):
        return None
    return Remembered(memories, text, memories[int(number) - 1] if number != "0" else "", mood)
