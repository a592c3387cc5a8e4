"""Replies of an earlier model to messages of the corpus, and which of them fit, as readers found who saw nothing else.

A file of `verdicts/` is a table: what the user says, the mood that the reply was told, the reply, 1 or 0, and why not.
In a conversation the first cell has all that was said, user and model in turn, and the second the mood of each of the
user's messages, with `BETWEEN` between them.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from demo.corpus.dialogues import MOODS

HERE = Path(__file__).parent / "verdicts"
COLUMNS = ("text", "mood", "reply", "fits", "why")
BETWEEN = " ⏎ "


@dataclass
class Judged:
    """What was said, by the user and the model in turn, the user last; the mood told with each of his messages; replies
    to the last one, without their ends; and what was told of the user."""

    said: tuple[str, ...]
    moods: tuple[str, ...]
    fitting: list[str] = field(default_factory=list)
    unfit: list[str] = field(default_factory=list)
    memories: tuple[str, ...] = ()


def read_verdicts(name: str = "*", folder: Path = HERE) -> list[Judged]:
    """Those of the files of that name, or of all, by what was said, in the files' order.

    Raises:
        ValueError: no such file, or a row that is no verdict, named with file and line.
    """
    found: dict[tuple[str, ...], Judged] = {}
    paths = sorted(folder.glob(f"{name}.tsv"))
    if not paths:
        raise ValueError(
            f"no verdicts {name!r} in {folder}; there are {', '.join(p.stem for p in sorted(folder.glob('*.tsv')))}"
        )
    for path in paths:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            if tuple(next(rows, ())) != COLUMNS:
                raise ValueError(f"{path.name}:1: the columns have to be {', '.join(COLUMNS)}")
            for number, row in enumerate(rows, 2):
                if not _is_verdict(row):
                    raise ValueError(f"{path.name}:{number}: text, mood, reply, 1 or 0, and why not are wanted")
                text, mood, reply, fits, _ = row
                said, moods = tuple(text.split(BETWEEN)), tuple(mood.split(BETWEEN))
                judged = found.setdefault(said, Judged(said, moods))
                (judged.fitting if fits == "1" else judged.unfit).append(reply)
    return list(found.values())


def write_pairs(judged: Iterable[Judged], file: Path) -> None:
    """For `read_pairs`: what nobody has judged, as demo/pairs.py makes it."""
    file.write_text("".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in judged), encoding="utf-8")


def read_pairs(file: Path) -> list[Judged]:
    """What `write_pairs` wrote."""
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    texts = ("said", "moods", "memories")
    return [Judged(**row | {name: tuple(row[name]) for name in texts}) for row in rows]


def _is_verdict(row: list[str]) -> bool:
    if len(row) != len(COLUMNS):
        return False
    said, moods, reply, fits = row[0].split(BETWEEN), row[1].split(BETWEEN), row[2], row[3]
    return (
        all(said)
        and bool(reply)
        and fits in ("0", "1")
        and set(moods) <= set(MOODS)
        and len(said) == 2 * len(moods) - 1
    )
