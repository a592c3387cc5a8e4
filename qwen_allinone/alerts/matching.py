"""Which rules fire at a text, and what is told of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from qwen_allinone.alerts.rules import Rule, Source
from qwen_allinone.state import AlertEvent

_MOST_TEXT = 500


@dataclass(frozen=True)
class Heard:
    """What a task said of a text: a label and how likely it is, or items."""

    label: str = ""
    probability: float = 0.0
    items: tuple[str, ...] = ()


@dataclass(frozen=True)
class Subject:
    """A text and what is known of it. `key` is equal where the same text of the same request, line or row is told
    again, and for no other; `place` is where people find it: a request's id, or a file and its line. `may_come_again`:
    who asked for it can ask for the same again."""

    source: Source
    key: str
    text: str
    place: str
    answers: Mapping[str, Heard] = field(default_factory=dict)
    rating: float | None = None
    may_come_again: bool = True


def fires(rule: Rule, subject: Subject) -> bool:
    """Whether all that the rule asks for holds; how often it did is not looked at."""
    when = rule.when
    if subject.source not in rule.sources or (rule.rate and subject.source == "feedback"):
        return False  # rows of a file come all at once, so that no rate says anything of them
    for task in when.tasks:
        heard = subject.answers.get(task)
        if heard is None or not heard.label:
            return False
        if task in when.wanted and heard.label not in when.wanted[task]:
            return False
        if heard.probability < when.probability.get(task, 0.0):
            return False
    if when.rating and (subject.rating is None or not when.rating.holds(subject.rating)):
        return False
    if when.keywords and not _names_any(subject, when.keywords):
        return False
    return when.pattern is None or when.pattern.is_in(subject.text)


def events(rules: Sequence[Rule], subject: Subject, at: float) -> Iterator[AlertEvent]:
    """What is to be told, `at` Unix seconds. The same subject makes events of the same ids."""
    for rule in rules:
        if fires(rule, subject):
            id = blake2b(f"{rule.name}\0{subject.key}".encode("utf-8", "replace"), digest_size=16).hexdigest()
            yield AlertEvent(
                id,
                rule.name,
                at,
                rule.channels,
                json.dumps(_told(rule, subject)),
                rule.rate.count if rule.rate else 1,
                rule.rate.within if rule.rate else 0.0,
                rule.pause_s,
                subject.may_come_again,
            )


def _names_any(subject: Subject, words: Sequence[str]) -> bool:
    spoken = [subject.text, *(item for heard in subject.answers.values() for item in heard.items)]
    return any(word.casefold() in said.casefold() for word in words for said in spoken)


def _told(rule: Rule, subject: Subject) -> dict[str, Any]:
    """What an alert says. Labels are the prompts' words; what users wrote, items too, only where the rule says so."""
    told: dict[str, Any] = {
        "rule": rule.name,
        "title": rule.title or rule.name,
        "source": subject.source,
        "place": subject.place,
        "labels": {
            task: {"label": heard.label, "probability": round(heard.probability, 4)}
            for task, heard in subject.answers.items()
            if heard.label
        },
    }
    if subject.rating is not None:
        told["rating"] = subject.rating
    if rule.rate:
        told["rate"] = {"count": rule.rate.count, "within_s": rule.rate.within}
    if rule.show_text:
        told["text"] = subject.text[:_MOST_TEXT]
        if items := [item for heard in subject.answers.values() for item in heard.items]:
            told["keywords"] = items
    return told
