"""What tasks say, and what one may hear of an answer while it is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from qwen_allinone.engine import Result
from qwen_allinone.state import Turn

# Given a way to give a request up, watches whether its caller is still there for as long as the context lasts.
Watch = Callable[[Callable[[], None]], AbstractContextManager[None]]


@dataclass(frozen=True)
class Submitted:
    """What was asked has been checked and the engine has it; now it takes its time."""


@dataclass(frozen=True)
class Delta:
    """The next piece of a reply, and how many tokens were generated for it."""

    text: str
    tokens: int


# What one may hear of a chat while it is made, first that it was submitted.
Progress = Callable[["Submitted | Answer | Delta"], None]


def unwatched(_: Callable[[], None]) -> AbstractContextManager[None]:
    """The `Watch` for a caller that cannot leave."""
    return nullcontext()


@dataclass(frozen=True)
class Answer:
    """What a task said: `label` and `probabilities` (by label), or `text`, and its `items` if it is a list."""

    task: str
    result: Result
    text: str = ""
    label: str | None = None
    emoji: str | None = None
    probabilities: Mapping[str, float] | None = None
    items: tuple[str, ...] | None = None
    cache: str | None = None  # HIT or MISS, None where the cache was not asked


@dataclass(frozen=True)
class RouteAnswer:
    """What `route` said, and what the task it picked said."""

    choice: Answer
    answer: Answer


@dataclass(frozen=True)
class ChatAnswer:
    """A sentiment and the reply that was given knowing it; `turn` is both as a session keeps them."""

    sentiment: Answer
    reply: Answer
    turn: Turn
