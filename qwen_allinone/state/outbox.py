"""Alerts as they are kept until they are told: what came to pass, and the messages that come of it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

MessageState = Literal["waiting", "sent", "dead"]
# What became of an event: a message for each channel; nothing yet, for a rate is not reached; nothing, for the rule has
# fired just before; nothing, for it had been here.
Outcome = Literal["fired", "counted", "held", "known"]


@dataclass(frozen=True)
class AlertEvent:
    """A rule's conditions held for a text, `at` Unix seconds. `body` is JSON: what is told.

    `count` such events within `within_s` make an alert; then there is none of this rule for `pause_s`.
    `may_come_again`: as one that was held back it is known then too; of others nothing is kept that anybody could fill
    the outbox with.
    """

    id: str
    rule: str
    at: float
    channels: tuple[str, ...]
    body: str
    count: int = 1
    within_s: float = 0.0
    pause_s: float = 0.0
    may_come_again: bool = True

    def line(self) -> bytes:
        """As a line of a file."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def of(cls, line: bytes) -> AlertEvent:
        """From such a line. Raises ValueError: it is none."""
        try:
            fields: dict[str, Any] = json.loads(line)
            return cls(**(fields | {"channels": tuple(fields["channels"])}))
        except (TypeError, KeyError) as error:
            raise ValueError(str(error)) from None


@dataclass(frozen=True)
class Message:
    """One alert for one channel. `tries`: how often it was sent, this time included; `due`: not before."""

    id: str
    channel: str
    rule: str
    created: float
    body: str
    state: MessageState
    tries: int
    due: float
    error: str = ""
