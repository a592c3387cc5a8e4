"""What is known of the request in hand: one object, which the hooks and routes fill and read."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from flask import g

from qwen_allinone.service import Answer


@dataclass
class RequestState:
    """`caller` is the name of the key or token that made the request, None where no key is asked for.

    `address` is the client's, behind the trusted proxies; None before the guards have looked. `answers` are all that
    the request took so far, see Terms.answers, and `errors` the codes that it was answered with: who holds the lists
    sees later ones too. `began` is a time.monotonic() value.
    """

    began: float = field(default_factory=time.monotonic)
    caller: str | None = None
    address: str | None = None
    answers: list[Answer] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def current() -> RequestState:
    """The state of the request in hand."""
    state: RequestState = g.state
    return state
