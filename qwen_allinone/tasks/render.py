"""Inputs -> the messages or the text the model reads. Tokens are the tokenizer's job, but for a reply's own."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qwen_allinone.invisible_characters import is_invisible
from qwen_allinone.tasks.task import MEMORIES, Message, Task

_BLANKS = re.compile(r"[^\S\n]+")
_NEWLINES = re.compile(r" ?\n[ \n]*")
_MOST_MARKS = 30
_REPEATED_MARK = re.compile(r"([^\w\s])\1{2,}")


@dataclass(frozen=True)
class Completion:
    """A plain text to be continued."""

    text: str


# Text, or the token ids that a reply was generated as.
Content = str | tuple[int, ...]


@dataclass(frozen=True)
class Chat:
    """Messages as (role, content), to be put into the tokenizer's chat template."""

    messages: tuple[tuple[str, Content], ...]


@dataclass(frozen=True)
class Exchange:
    """An earlier turn of a conversation: what the task was given, and what it replied."""

    inputs: Mapping[str, str]
    reply: Content


Rendered = Completion | Chat


def render(task: Task, inputs: Mapping[str, str]) -> Rendered:
    """Fill `inputs` (one string for each declared input) into the prompt of `task`."""
    if task.is_chat:
        return Chat(tuple(_messages(task, inputs)))
    return Completion(_fill(task.messages[0], inputs))


def render_turns(task: Task, past: Sequence[Exchange], inputs: Mapping[str, str], *, restate: bool = True) -> Chat:
    """Fill `inputs` into the chat prompt of `task`, as the next turn after `past` (oldest first).

    The first turn is the whole prompt. Later ones repeat it only from the first message on that reads otherwise than
    it last did, such as a system message with a label in it, but at least the user's. So what a turn looks like
    depends on nothing that comes after it, and a conversation's prompt begins with the one before.

    Without `restate`, for templates that take a system message at the beginning only, all but the users' messages
    stand there once, filled with what holds now: right too, but whenever they change, all begins anew.
    """
    messages: list[tuple[str, Content]] = []
    shown: list[tuple[str, str]] = []
    for number, given in enumerate([*(exchange.inputs for exchange in past), inputs]):
        own = _messages(task, given)
        if number == 0:
            messages += own if restate else [*_messages(task, inputs)[:-1], own[-1]]
        else:
            messages.append(("assistant", past[number - 1].reply))
            messages += own[_first_changed(shown, own) if restate else -1 :]
        shown = own
    return Chat(tuple(messages))


def clean(text: str) -> str:
    """Normalise noisy text for `clean: true`.

    Control and format characters (categories Cc and Cf: zero-width, bidi overrides, NUL) dropped, NFKC
    (Unicode Annex 15); runs of blanks, of line breaks, of one punctuation mark and of combining marks
    shortened to one, one, two and thirty. Cleaning twice is cleaning once.
    """
    # Dropped before normalising: a letter and an accent that a joiner kept apart are one character then.
    text = "".join(c for c in text if c.isspace() or unicodedata.category(c) not in ("Cc", "Cf"))
    text = _stream_safe(unicodedata.normalize("NFKC", _stream_safe(text)))
    text = _NEWLINES.sub("\n", _BLANKS.sub(" ", text))
    return _REPEATED_MARK.sub(r"\1\1", text).strip()


def is_blank(text: str) -> bool:
    """Whether nothing of `text` can be seen."""
    return all(map(is_invisible, text))


def _stream_safe(text: str) -> str:
    """At most 30 combining marks in a row (Unicode Annex 15, section 13): normalising sorts them in quadratic time."""
    kept, run = [], 0
    for character in text:
        run = run + 1 if unicodedata.combining(character) else 0
        if run <= _MOST_MARKS:
            kept.append(character)
    return "".join(kept)


def _first_changed(shown: Sequence[object], own: Sequence[object]) -> int:
    """Where `own` begins to differ from `shown`, the last place if nowhere."""
    return next((i for i, (a, b) in enumerate(zip(shown, own, strict=True)) if a != b), len(own) - 1)


def _messages(task: Task, inputs: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(str(message.role), _fill(message, inputs)) for message in task.messages]


def _fill(message: Message, inputs: Mapping[str, str]) -> str:
    filled = {MEMORIES: "", **inputs}  # where nothing is remembered there are none
    return "".join(part if isinstance(part, str) else filled[part.name] for part in message.parts)
