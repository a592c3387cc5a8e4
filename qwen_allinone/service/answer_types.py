"""What callers ask beside their inputs, what they get, and what they may hear of it while it is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

from qwen_allinone.engine import Logprobs, Result
from qwen_allinone.state import Statement, Turn

# Given a way to give a request up, watches whether its caller is still there for as long as the context lasts.
Watch = Callable[[Callable[[], None]], AbstractContextManager[None]]

# Given a request in hand and a chat's text, says which memories the reply is to be reminded of, the best first.
Remind = Callable[[Any, str], Sequence[Statement]]


def unwatched(_: Callable[[], None]) -> AbstractContextManager[None]:
    """The `Watch` for a caller that cannot leave."""
    return nullcontext()


@dataclass(frozen=True)
class Answer:
    """What a task said: `label` and `probabilities` (by label), or `text`, and its `items` if it is a list, and its
    `value` if it is JSON. `is_cut`: it is not, though it was to be.

    `model_id` is the Codec's, `version` the FittedTask's. `cache` is HIT or MISS, None where the cache was not asked.
    Of a request that ended with an error there is an answer that says nothing: its result is UNFINISHED, and counts
    what was computed. `fired`: it is why the reply of a chat is the vetted text. `inputs` is what a task was
    asked, None where that was no task alone: the reply of a chat.
    """

    task: str
    result: Result
    text: str = ""
    label: str | None = None
    emoji: str | None = None
    probabilities: Mapping[str, float] | None = None
    items: tuple[str, ...] | None = None
    value: Any = None
    is_cut: bool = False
    cache: str | None = None
    model_id: str = ""
    version: str = ""
    fired: bool = False
    inputs: Mapping[str, str] | None = None


@dataclass(frozen=True)
class CacheUse:
    """What a request wants of the cache."""

    read: bool = True
    store: bool = True


class Listener(Protocol):
    """Hears of an answer while it is made, in the caller's thread."""

    def submitted(self) -> None:
        """What was asked has been checked and the engine has it; now it takes its time."""

    def labelled(self, sentiment: Answer, care: Answer | None) -> None:
        """The sentiment of a chat is known, and what the task `care` says if there is one."""

    def delta(self, text: str, choice: int = 0, logprobs: Sequence[Logprobs] = ()) -> None:
        """The next piece of a reply, with its tokens' log-probabilities where they were asked for; one of both is
        there. `choice`: which of the request's replies it is."""


@dataclass(frozen=True)
class Terms:
    """What a caller asks beside his inputs. `deadline_s` can only shorten the service's own. `caller` is his
    name: callers share neither remembered answers nor keys and values, for nobody is to learn what another has asked.

    `cache` None: remembered answers are not used. `answers` is filled while the request is served: each answer that it
    took, in order, the unfinished ones of a request that fails included. They are what it has cost. `weighs_labels`:
    results of label tasks are to have their `label_mass`. `behind`: nobody waits for it, so that all others come first.
    Of those in line the ones with the highest `priority` come first.
    """

    deadline_s: float | None = None
    caller: str | None = None
    watch: Watch = unwatched
    cache: CacheUse | None = None
    listener: Listener | None = None
    weighs_labels: bool = False
    answers: list[Answer] = field(default_factory=list)
    behind: bool = False
    priority: int = 0


@dataclass(frozen=True)
class RouteAnswer:
    """What `route` said, and what the task it picked said."""

    choice: Answer
    answer: Answer


@dataclass(frozen=True)
class ChatAnswer:
    """A sentiment and the reply that was given knowing it; `turn` is both as a session keeps them.

    `told` is the mood that the reply was told, None if it was told none. `care` is what the task `care` said; where it
    fired the reply is the vetted text. None without that task. `recalled` are the memories that the reply was told.
    """

    sentiment: Answer
    reply: Answer
    turn: Turn
    told: str | None = None
    care: Answer | None = None
    recalled: tuple[Statement, ...] = ()
