"""The written conversations, read strictly: a mistake is told with its file and line.

python -m demo.corpus.dialogues
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from demo.corpus.apart import Apart, bare

HERE = Path(__file__).parent
KINDS = frozenset(path.stem for path in (HERE.parent / "frames").glob("*.txt"))
POSITIVE, NEGATIVE, CALM = MOODS = ("正面", "负面", "平静")
HELP = re.compile("12356|120|110")  # a reply to words of despair or of violence names it
ALSO, KIND, RECALL, REPLY, OR, MEMORY, SYSTEM = MARKS = "也", "类", "想起", "答", "或", "记得", "系统"
LONGEST_TEXT, LONGEST_REPLY, MOST_TURNS = 300, 160, 4
# Greetings and the like: everybody writes them, so that they are in what is measured takes them from nobody.
EVERYDAY = 5


class DialogueError(Exception):
    """A line that cannot be read; says which and what to write."""


@dataclass(frozen=True)
class Turn:
    """What the user says, in one or more wordings, with his mood; replies that fit any of them.

    `kind` names the frames that answer it too, "" if none do; `topic` are the words of the text that they may name.
    Without `replies` only frames answer it. `recall` is the memory that matters here, "" if none does.
    """

    mood: str
    texts: tuple[str, ...]
    replies: tuple[str, ...]
    kind: str = ""
    topic: str = ""
    recall: str = ""


@dataclass(frozen=True)
class Dialogue:
    """One to four turns, with what is known of the user and the system prompt if it has one of its own."""

    turns: tuple[Turn, ...]
    system: str = ""
    memories: tuple[str, ...] = ()
    source: str = ""


@dataclass
class _Turn:
    """A turn while it is read."""

    mood: str
    texts: list[str]
    replies: list[str] = field(default_factory=list)
    kind: str = ""
    topic: str = ""
    recall: str = ""


@dataclass
class _Block:
    """A conversation while it is read."""

    where: str
    turns: list[_Turn] = field(default_factory=list)
    system: str = ""
    memories: tuple[str, ...] = ()

    def finished(self) -> Dialogue:
        if not self.turns or not all(turn.replies or turn.kind for turn in self.turns):
            raise DialogueError(f"{self.where}: a conversation needs turns, and each turn a line 答： or 类：")
        if len(self.turns) > MOST_TURNS:
            raise DialogueError(f"{self.where}: {len(self.turns)} turns; split it, {MOST_TURNS} are the most")
        turns = tuple(Turn(t.mood, tuple(t.texts), tuple(t.replies), t.kind, t.topic, t.recall) for t in self.turns)
        return Dialogue(turns, self.system, self.memories, self.where)

    def take(self, mark: str, text: str, where: str) -> None:
        """One line."""
        last = self.turns[-1] if self.turns else None
        if mark in MOODS:
            self.turns.append(_Turn(mark, [_within(text, LONGEST_TEXT, where)]))
        elif mark == ALSO and last and not last.replies:
            last.texts.append(_within(text, LONGEST_TEXT, where))
        elif mark == KIND and last and not last.replies and not last.kind:
            last.kind, _, last.topic = text.partition("；")
            if last.kind not in KINDS:
                raise DialogueError(
                    f"{where}: {last.kind!r} is no kind; they are the files of {HERE.parent / 'frames'}"
                )
            if last.topic and not any(last.topic in wording for wording in last.texts):
                raise DialogueError(f"{where}: {last.topic!r} does not stand in what the user says")
        elif mark == RECALL and last and last.kind and not last.replies:
            last.recall = text
            if text not in self.memories:
                raise DialogueError(f"{where}: {text!r} is not among what the conversation remembers")
        elif (mark == REPLY and last and not last.replies) or (mark == OR and last and last.replies):
            last.replies.append(_within(text, LONGEST_REPLY, where))
        elif mark == MEMORY and not last:
            self.memories = tuple(part.strip() for part in text.split("；") if part.strip())
        elif mark == SYSTEM and not last:
            self.system = text
        else:
            raise DialogueError(f"{where}: a line {mark}： cannot stand here")


def _within(text: str, most: int, where: str) -> str:
    if not 0 < len(text) <= most:
        raise DialogueError(f"{where}: {len(text)} characters; 1 to {most} are allowed")
    return text


def read_file(path: Path) -> Iterator[Dialogue]:
    """The conversations of one file.

    Raises:
        DialogueError: a line that is no mark with a text, or stands where it may not.
    """
    block: _Block | None = None
    for number, line in enumerate([*path.read_text(encoding="utf-8").splitlines(), ""], 1):
        line, where = line.strip(), f"{path.name}:{number}"
        if not line and block:
            yield block.finished()
            block = None
        if not line or line.startswith("#"):
            continue
        mark, colon, text = line.partition("：")
        if not colon or mark not in (*MOODS, *MARKS):
            raise DialogueError(f"{where}: begin the line with one of {' '.join((*MOODS, *MARKS))} and ：")
        block = block or _Block(where)
        block.take(mark, text.strip(), where)


def read_dialogues(folder: Path = HERE) -> list[Dialogue]:
    """All conversations, in the order of the files' names."""
    return [dialogue for path in sorted(folder.glob("*.txt")) for dialogue in read_file(path)]


def may_be_read(apart: Apart, text: str) -> bool:
    """Whether `text` shares no sentence with what is measured, or is a greeting and the like."""
    return len(bare(text)) <= EVERYDAY or apart.clear(text)


def clear_of(apart: Apart, dialogues: list[Dialogue]) -> list[Dialogue]:
    """The conversations without the wordings that may not be read; those of which nothing is left are left out."""
    kept = []
    for dialogue in dialogues:
        turns = tuple(
            replace(turn, texts=tuple(text for text in turn.texts if may_be_read(apart, text)))
            for turn in dialogue.turns
        )
        if all(turn.texts for turn in turns):
            kept.append(Dialogue(turns, dialogue.system, dialogue.memories, dialogue.source))
    return kept
