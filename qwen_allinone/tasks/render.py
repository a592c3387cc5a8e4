"""Inputs -> the messages or the text the model reads. Plain strings; tokens are the tokenizer's job."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

from qwen_allinone.tasks.task import Message, Task

_BLANKS = re.compile(r"[^\S\n]+")
_NEWLINES = re.compile(r" ?\n[ \n]*")
_MOST_MARKS = 30
_REPEATED_MARK = re.compile(r"([^\w\s])\1{2,}")


@dataclass(frozen=True)
class Completion:
    """A plain text to be continued."""

    text: str


@dataclass(frozen=True)
class Chat:
    """Messages as (role, content), to be put into the tokenizer's chat template."""

    messages: tuple[tuple[str, str], ...]


Rendered = Completion | Chat


def render(task: Task, inputs: Mapping[str, str]) -> Rendered:
    """Fill `inputs` (one string for each declared input) into the prompt of `task`."""
    if task.is_chat:
        return Chat(tuple((str(message.role), _fill(message, inputs)) for message in task.messages))
    return Completion(_fill(task.messages[0], inputs))


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


def _stream_safe(text: str) -> str:
    """At most 30 combining marks in a row (Unicode Annex 15, section 13): normalising sorts them in quadratic time."""
    kept, run = [], 0
    for character in text:
        run = run + 1 if unicodedata.combining(character) else 0
        if run <= _MOST_MARKS:
            kept.append(character)
    return "".join(kept)


def _fill(message: Message, inputs: Mapping[str, str]) -> str:
    return "".join(part if isinstance(part, str) else inputs[part.name] for part in message.parts)
