"""First messages by kind, read strictly: a mistake is told with its file and line.

A file of `messages/` is a list of what users say, a line each, under headings that tell kind and mood:

    [talk_pets 平静]
    我家猫又霸占键盘了；猫

After `；` stand the words that a frame of the kind may name. Frames alone answer these messages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from demo.corpus.dialogues import KINDS, LONGEST_TEXT, MOODS, Dialogue, DialogueError, Turn, read_dialogues

HERE = Path(__file__).parent / "messages"
_HEADING = re.compile(r"\[(\w+) (\w+)\]")


def read_conversations() -> list[Dialogue]:
    """All that is learned of talking: the written conversations and the first messages."""
    return read_dialogues() + read_messages()


def read_messages(folder: Path = HERE) -> list[Dialogue]:
    """All messages, in the order of the files' names, each a conversation of one turn; raises DialogueError."""
    return [message for path in sorted(folder.glob("*.txt")) for message in read_message_file(path)]


def read_message_file(path: Path) -> Iterator[Dialogue]:
    """The messages of one file.

    Raises:
        DialogueError: a heading of an unknown kind or mood, a line before the first, words that a message has not.
    """
    kind = mood = ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        line, where = line.strip(), f"{path.name}:{number}"
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            kind, mood = _heading(line, where)
            continue
        text, _, topic = (part.strip() for part in line.partition("；"))
        if not kind:
            raise DialogueError(f"{where}: a heading such as [talk_pets 平静] has to come first")
        if not 0 < len(text) <= LONGEST_TEXT:
            raise DialogueError(f"{where}: {len(text)} characters; 1 to {LONGEST_TEXT} are allowed")
        if topic not in text:
            raise DialogueError(f"{where}: {topic!r} does not stand in what the user says")
        yield Dialogue((Turn(mood, (text,), (), kind, topic),), source=where)


def _heading(line: str, where: str) -> tuple[str, str]:
    found = _HEADING.fullmatch(line)
    if not found or found[1] not in KINDS or found[2] not in MOODS:
        raise DialogueError(
            f"{where}: {line} is no heading; write [kind mood], a kind that has a file in frames and one of {MOODS}"
        )
    return found[1], found[2]
