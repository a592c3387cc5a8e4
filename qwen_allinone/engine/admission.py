"""Who may come in: bounds how many requests are inside, in all and of a caller, and refuses who would come too late."""

from __future__ import annotations

import itertools
import math
import random
import threading
import time
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType, TracebackType
from typing import Generic

from qwen_allinone.engine.contract import T
from qwen_allinone.engine.ticket import Ticket
from qwen_allinone.errors import Cancelled, DeadlineExceeded, ServerBusy
from qwen_allinone.wording import said

# How much one more interval between two answers moves the average.
_SMOOTHING = 0.1
# One place in so many of those to wait in is kept for callers who hold few.
_KEPT_FREE = 4
# A newcomer is told that it comes too late only if half of the expected wait is more than it has.
_CAUTION = 0.5
_SHORTEST_RETRY_S, _LONGEST_RETRY_S = 2.0, 30.0
# How much the time to come back grows with each refusal, and shrinks with each answer: it settles where one request is
# refused for four that are answered.
_GROWS, _SHRINKS = 1.02, 1.005
_TOO_LATE = said("too_late")


class Permit(Generic[T]):
    """One request's leave to ask things of the engine, from admission to its end. Use it as a context manager.

    `rank` is its number among all that were ever admitted: what it asks later still comes before what younger requests
    ask. Those of higher `priority` come first. `deadline` is a time.monotonic() value. `published` is what the loader
    made to go with the model. What one `caller` leaves in a slot no other has the use of. One that is `behind` takes no
    place that another could have, and may have to make way: then it ends with Cancelled.
    """

    def __init__(
        self,
        admission: Admission[T],
        rank: int,
        deadline: float,
        published: T,
        caller: str | None,
        *,
        behind: bool = False,
        priority: int = 0,
    ) -> None:
        self.rank = rank
        self.caller = caller
        self.deadline = deadline
        self.published = published
        self.cancelled = False
        self.behind = behind
        self.priority = priority
        self._admission = admission
        self._lock = threading.Lock()
        self._open: set[Ticket] = set()  # asked and not ended
        self._asked = self._over = False

    def check(self) -> None:
        """Raise if waiting makes no sense any more: Cancelled, DeadlineExceeded."""
        if self.cancelled:
            raise Cancelled()
        if time.monotonic() >= self.deadline:
            raise DeadlineExceeded()

    def hold(self, ticket: Ticket) -> None:
        """Note what the request is waiting for, from any thread."""
        with self._lock:
            self._asked = True
            self._open.add(ticket)
        ticket.future.add_done_callback(lambda _: self._ended(ticket))
        if self.cancelled:  # by another thread, which may not have seen this ticket
            ticket.cancel()

    def cancel(self) -> None:
        """Give the request up, from any thread: what it waits for ends within two steps, and it gets nothing more."""
        self.cancelled = True
        with self._lock:
            left = list(self._open)
        for ticket in left:
            ticket.cancel()

    def __enter__(self) -> Permit[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._over = True
            # The engine wakes the caller first and calls `_ended` then.
            self._open = {ticket for ticket in self._open if not ticket.future.done()}
            left = list(self._open)
        if not left:
            self._leave(answered=self._asked and error is None)
        for ticket in left:  # nobody waits for these any more
            ticket.cancel()

    def _ended(self, ticket: Ticket) -> None:
        with self._lock:
            if ticket not in self._open:
                return
            self._open.remove(ticket)
            last = self._over and not self._open
        if last:
            # Its caller had stopped waiting before the engine noticed: until now it counted as inside.
            self._leave(answered=False)

    def _leave(self, *, answered: bool) -> None:
        if not self.behind:
            self._admission.leave(self.caller, answered=answered)


class Admission(Generic[T]):
    """Counts the requests inside, and spreads those it refuses over time. Thread-safe.

    `shares` of the callers: who is not named has 1.
    """

    def __init__(self, slots: int, max_waiting: int, shares: Mapping[str, int] = MappingProxyType({})) -> None:
        self._slots = slots
        self.limit = slots + max_waiting
        self._shares = shares
        self._kept_free = max_waiting // _KEPT_FREE
        self._held = Counter[str]()  # places, by caller
        self._lock = threading.Lock()
        self.inside = 0  # requests that were let in and have not ended
        self._ranks = itertools.count()
        # Seconds between two answers while requests wait; None before the first two.
        self._interval: float | None = None
        self._last_answer: float | None = None
        self._apart_s = _SHORTEST_RETRY_S  # keeps a crowd that obeys from coming faster than it can be answered

    def enter(self, deadline: float, published: T, caller: str | None = None, priority: int = 0) -> Permit[T]:
        """Let a request of `caller` in; one with a `priority` does not wait behind all that are inside.

        Raises:
            ServerBusy: as many are inside as may be, or so many of this caller's that others find no room, or the line
                is so long that `deadline` cannot be met.
        """
        with self._lock:
            if self.inside >= self.limit or self._has_enough(caller):
                raise self._busy()
            wait = _CAUTION * self._wait_s() if self.inside >= self._slots and not priority else 0.0
            if wait and time.monotonic() + wait >= deadline:
                raise ServerBusy(_TOO_LATE, retry_after=self._retry_after())
            self.inside += 1
            if caller is not None:
                self._held[caller] += 1
            return Permit(self, next(self._ranks), deadline, published, caller, priority=priority)

    def enter_behind(self, deadline: float, published: T, caller: str | None = None) -> Permit[T]:
        """Let a request in that nobody waits for: it is in no count, and those who are counted come first."""
        with self._lock:
            return Permit(self, next(self._ranks), deadline, published, caller, behind=True)

    def leave(self, caller: str | None, *, answered: bool) -> None:
        """A request of `caller` has ended; `answered` ones tell how fast the line moves."""
        now = time.monotonic()
        with self._lock:
            if answered and self._last_answer is not None:
                interval = now - self._last_answer
                before = interval if self._interval is None else self._interval
                self._interval = before + _SMOOTHING * (interval - before)
            self.inside -= 1
            if caller is not None:
                self._held[caller] -= 1
                self._held += Counter()  # drops those that hold nothing
            if answered:
                self._apart_s = max(self._apart_s / _SHRINKS, _SHORTEST_RETRY_S)
            if self.inside < self._slots:
                self._apart_s = _SHORTEST_RETRY_S  # nobody waits: there is no crowd
                self._last_answer = None  # from here on the next answer also waits for somebody to ask
            elif answered:
                self._last_answer = now

    def busy(self) -> ServerBusy:
        """The error for one who is not let in, with a time after which that may well be otherwise."""
        with self._lock:
            return self._busy()

    def _has_enough(self, caller: str | None) -> bool:
        """Whether only places are left that are kept for callers who hold less than they would beside one more."""
        if caller is None or self.inside < self.limit - self._kept_free:
            return False
        shares = sum([self._shares.get(name, 1) for name in {*self._held, caller}]) + 1
        return self._held[caller] >= self.limit * self._shares.get(caller, 1) // shares

    def _wait_s(self) -> float:
        """How long a newcomer is likely to wait for a slot; 0 where nothing is known."""
        ahead = self.inside - self._slots + 1
        return max(ahead, 0) * (self._interval or 0.0)

    def _busy(self) -> ServerBusy:
        error = ServerBusy(retry_after=self._retry_after())
        self._apart_s = min(self._apart_s * _GROWS, _LONGEST_RETRY_S)
        return error

    def _retry_after(self) -> int:
        """When the line has moved on and the crowd is apart, a little more or less: not all come back at once."""
        apart = self._apart_s if self._apart_s > _SHORTEST_RETRY_S else 0.0
        seconds = max(self._wait_s() * _CAUTION, apart) * random.uniform(0.75, 1.25)
        return math.ceil(min(max(seconds, _SHORTEST_RETRY_S), _LONGEST_RETRY_S))
