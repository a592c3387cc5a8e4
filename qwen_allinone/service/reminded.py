"""Completions for a user who is remembered: memories go into a client's messages, and what he said is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qwen_allinone.errors import RequestError
from qwen_allinone.service.answer_types import Answer, Remind, Terms
from qwen_allinone.service.codec import Codec
from qwen_allinone.service.completions import (
    DEFAULT_MAX_TOKENS,
    Utterance,
    Wanted,
    chat_ids,
    checked_ids,
    replies_to,
)
from qwen_allinone.service.request import Request
from qwen_allinone.service.service import Service
from qwen_allinone.state import Statement
from qwen_allinone.tasks import Input, is_blank

# Of a text that memories are looked for by: its end. Each word of it is looked for in each memory.
_MOST_CHARS = 1024


@dataclass(frozen=True)
class Said:
    """What a user said last and its sentiment: what is worth keeping of it is to be found."""

    text: str
    mood: str | None


@dataclass(frozen=True)
class Reminded:
    """Replies, and the memories that their prompt was told. `said` is None where nothing is to be kept."""

    answers: list[Answer]
    recalled: tuple[Statement, ...] = ()
    said: Said | None = None


def complete_reminded(
    service: Service, remind: Remind, messages: Sequence[Utterance], wanted: Wanted, terms: Terms
) -> Reminded:
    """The replies to `messages`, told what `remind` finds for the last of the user's; raises as `complete`.

    That message is labelled as a chat's text is: words of despair, and what is too long for those tasks, are not kept.
    """
    with service.request(terms) as request:
        ids, place = checked_ids(messages, wanted, request.codec), _last_of_user(messages)
        if place is None:
            return Reminded(replies_to(request, [ids], wanted))
        text = messages[place][1]
        said = _to_keep(service, request, text)
        recalled, heard = remind(request, text[-_MOST_CHARS:]), service.memories_input
        known: tuple[Statement, ...] = ()
        if heard and recalled:
            ids, known = _told(request.codec, heard, messages, place, ids, recalled, wanted)
        return Reminded(replies_to(request, [ids], wanted), known, said)


def with_memories(messages: Sequence[Utterance], place: int, block: str, *, late: bool) -> list[Utterance]:
    """`messages` with `block`, lines that begin with a line break, told right before the one at `place`.

    A system message that is there is made longer, else there is one more; so what comes before keeps its tokens, and
    their keys and values are found again. Without `late`, for templates that take a system message at the beginning
    only, it stands there.
    """
    before = place if late else min(place, 1)
    told = list(messages)
    if before and told[before - 1][0] == "system":
        system = told[before - 1][1]
        told[before - 1] = ("system", system + block if not is_blank(system) else block.lstrip("\n"))
    else:
        told.insert(before if late else 0, ("system", block.lstrip("\n")))
    return told


def _last_of_user(messages: Sequence[Utterance]) -> int | None:
    """Where what the user said last stands, if he said anything."""
    places = [place for place, (role, _) in enumerate(messages) if role == "user"]
    return places[-1] if places and not is_blank(messages[places[-1]][1]) else None


def _to_keep(service: Service, request: Request, text: str) -> Said | None:
    try:
        sentiment, care = service.label(request, text)
    except RequestError:  # too long to be labelled: so nobody knows what is in it
        return None
    return None if care and care.fired else Said(text, sentiment.label)


def _told(
    codec: Codec,
    heard: Input,
    messages: Sequence[Utterance],
    place: int,
    ids: list[int],
    recalled: Sequence[Statement],
    wanted: Wanted,
) -> tuple[list[int], tuple[Statement, ...]]:
    """Token ids with as many of the memories as there is room for, and these; `ids` and none if there is none.

    No reply is cut for them, unless its limit is above the usual one.
    """
    most = codec.context - min(wanted.sampling.max_new_tokens, DEFAULT_MAX_TOKENS)
    for count in range(len(recalled), 0, -1):
        block = heard.block([memory.text for memory in recalled[:count]])
        if len(codec.tokenizer.encode(block)) > heard.max_tokens:
            continue
        try:
            longer = chat_ids(with_memories(messages, place, block, late=codec.late_system), codec)
        except RequestError:  # too long, or the template takes no system message
            continue
        if len(longer) <= most:
            return longer, tuple(recalled[:count])
    return ids, ()
