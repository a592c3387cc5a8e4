"""Memories: what a store keeps of each user, one short statement each, and what it must do.

A user is a name that a caller gives: the same name given by another caller is somebody else. What a user wrote is first
noted, before the answer leaves; what is worth keeping of it is found later. A note is worked off in one transaction
with what was found in it, so it is neither lost nor kept twice, whoever dies in between.
"""

from __future__ import annotations

import hashlib
import re
import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

# What a statement takes beside its text and its vector, as owners' shares count it.
AROUND_BYTES = 300

Source = Literal["chat", "hand"]

# What a person has one of, as statements say it: a newer one takes the place of an older one.
_ONCE: dict[str, re.Pattern[str]] = {
    "home": re.compile(
        r"用户(?:(?:现在|目前|已经|已|刚|刚刚|最近|的家|家)*)(?:住在|住|搬到|搬去|搬家到|定居)(?!院|过|校)"
        r"|(?:the )?user (?:now |just |has |currently )*(?:lives in|moved to)\b"
    ),
    "name": re.compile(r"用户(?:的(?:名字|姓名))?(?:叫做|叫|名叫|是叫)|(?:the )?user(?:'s name is| is called)\b"),
    "age": re.compile(
        r"用户(?:今年|现在|已经)*[0-9一二两三四五六七八九十百]+(?:岁|$)|(?:the )?user is \d+ years old\b"
    ),
    "birthday": re.compile(r"用户的?生日|(?:the )?user's birthday\b"),
}


@dataclass(frozen=True)
class Whose:
    """A user of a caller. `owner` is the caller's name, None where no keys are asked for."""

    owner: str | None
    user: str


@dataclass(frozen=True)
class Memory:
    """One statement as it is kept; Unix seconds. `replaced`: since when a newer one holds in its place."""

    id: str
    text: str
    source: Source
    mood: str | None
    at: float
    expires: float
    replaced: float | None = None


class Statement(NamedTuple):
    """What a reply can be told of a memory."""

    id: str
    text: str


@dataclass(frozen=True)
class Held:
    """What holds of a user, the newest first. `likest(vector)`: places of those statements that have a vector of the
    model asked for, the likest to `vector` first; raises MemoryUnavailable."""

    statements: Sequence[Statement]
    likest: Callable[[bytes], list[int]]


@dataclass(frozen=True)
class Note:
    """What a user wrote at `at`, in which what is worth keeping is still to be found."""

    id: int
    whose: Whose
    text: str
    mood: str | None
    at: float
    tries: int


class MemoryStore(Protocol):
    """Where memories are kept: sqlite_memories.py, redis_memories.py, postgres_memories.py.

    Everything raises MemoryUnavailable when that cannot be used, and has then changed nothing; only a Redis that does
    not answer in time may have done what it was asked.
    """

    def check_room(self, whose: Whose) -> None:
        """Raises MemoryFull if the owner's users take as much as they may, all together."""

    def add(self, whose: Whose, text: str) -> Memory:
        """Keep a statement that was written by hand; raises MemoryFull."""

    def all(self, whose: Whose) -> list[Memory]:
        """All statements about a user that have not expired, the newest first; replaced ones too."""

    def held(self, whose: Whose, model: str) -> Held:
        """A user's statements that hold, to be found by their words and by what `model` makes of them.

        Every chat of a user asks this, of as many as a thousand: one question, and no more of each than is needed.
        """

    def delete(self, whose: Whose, id: str) -> None:
        """Forget one statement; raises MemoryNotFound."""

    def forget(self, whose: Whose) -> int:
        """Forget a user with all his notes; says how many statements there were."""

    def note(self, whose: Whose, text: str, mood: str | None) -> None:
        """Have what is worth keeping of `text` found later."""

    def take(self, hold_s: float) -> Note | None:
        """The oldest note that nobody holds, held for so long; None if there is none."""

    def settle(self, note: Note, texts: Sequence[str]) -> None:
        """Keep the statements found in a note, and be done with it. One that is gone was forgotten: nothing is kept."""

    def put_back(self, note: Note, wait_s: float, *, tried: bool) -> None:
        """Have a note taken again, not before `wait_s` seconds; `tried`: that it was taken counts among its tries."""

    def unread(self, model: str, most: int) -> list[tuple[Whose, Memory]]:
        """Some statements that have no vector of `model`."""

    def put_vector(self, whose: Whose, memory: Memory, model: str, vector: bytes) -> None:
        """Keep what `model` makes of a statement, float16 and of length 1, if that is still there."""

    def tidy(self) -> None:
        """Remove what has expired, and `erase`."""

    def erase(self) -> None:
        """Have no byte of what was forgotten left, if that has not been done and it is time for it."""


def form(text: str) -> bytes:
    """What two statements have in common that say the same in nearly the same characters."""
    characters = unicodedata.normalize("NFKC", text).casefold()
    return hashlib.sha256("".join(filter(str.isalnum, characters)).encode()).digest()[:16]


def topic(text: str) -> str | None:
    """What a statement is about if a user has only one of it; a newer statement about it replaces the older."""
    said = unicodedata.normalize("NFKC", text).casefold()
    return next((name for name, pattern in _ONCE.items() if pattern.match(said)), None)


def now() -> float:
    """Unix seconds, which mean the same in another process."""
    return time.time()
