"""What is known of the request in hand: one object, which the hooks and routes fill and read."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from math import ceil

from flask import g
from werkzeug.local import LocalProxy

from qwen_allinone.access import Window
from qwen_allinone.service import Answer
from qwen_allinone.telemetry.trace_parent import TraceParent


@dataclass(frozen=True)
class Standing:
    """How a caller stands with one limit."""

    limit: int
    window: Window

    @property
    def remaining(self) -> int:
        return max(0, self.limit - self.window.used)

    @property
    def resets_in_s(self) -> int:
        return max(1, ceil(self.window.resets_in_s))


@dataclass
class RequestState:
    """`id` goes into every line and answer. `began` is a time.monotonic() value.

    `caller` is the name of the key or token that made the request, None where no key is asked for. `is_stranger`: one
    is asked for, and none that holds was given. `address` is the client's, behind the trusted proxies; None before the
    guards have looked. `counted_as` is whose limits it counts towards, and `standings` how these stand by now.
    `answers` are all that the request took so far, see Terms.answers, and `errors` the codes that it was answered with:
    who holds the lists sees later ones too. `is_behind`: a line of a batch, for which nobody waits. `key` is equal
    where the same request is asked again and known to be the same, and for no other; `has_own_key`: its client gave one
    to know it by. `alerts` is told once what it was answered, before the client is; None: nobody wants to know.
    `priority`: those with a higher one come first. `trace` is what the caller says of his own, None where he does not.
    """

    id: str
    began: float = field(default_factory=time.monotonic)
    caller: str | None = None
    is_stranger: bool = False
    address: str | None = None
    counted_as: str | None = None
    standings: dict[str, Standing] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    is_behind: bool = False
    key: str = field(default_factory=lambda: secrets.token_hex(12))
    has_own_key: bool = False
    alerts: Callable[[RequestState], None] | None = None
    priority: int = 0
    trace: TraceParent | None = None

    def tell_alerts(self) -> None:
        """The request is as good as answered. Called again it does nothing."""
        tell, self.alerts = self.alerts, None
        if tell:
            tell(self)


# As flask.request is the request in hand, this is its state.
state: RequestState = LocalProxy(partial(getattr, g, "state"))  # type: ignore[assignment]


def current() -> RequestState:
    """The same, for those that keep it when the request is over."""
    found: RequestState = g.state
    return found
