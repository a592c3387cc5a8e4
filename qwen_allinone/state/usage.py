"""What was asked for and what it took, by day and owner: gathered in memory, written every few seconds.

No request waits for it. A process that ends writes what it has; one that is killed loses what it gathered since it
wrote last.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from typing import Literal, NamedTuple, Protocol

from qwen_allinone.errors import StoreUnavailable

log = logging.getLogger(__name__)

FLUSH_S = 3.0
# Held in memory while they cannot be written: each worker's, some 400 bytes each.
MOST_GATHERED = 10_000


class UsageLine(NamedTuple):
    """What is counted together. `day` is a UTC date, `owner` None where nobody is asked for a key, `name` a route's
    or a task's."""

    day: str
    owner: str | None
    kind: Literal["route", "task"]
    name: str


class Counts(NamedTuple):
    """Requests of a route, or answers of a task; how many of them failed; the tokens they took."""

    times: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


Counted = tuple[Literal["route", "task"], str, Counts]  # a route or a task, by its name
Usages = Mapping[UsageLine, Counts]


def text_of(owner: str | None) -> str:
    """As stores write it: no owner's name can read like the absence of one."""
    return "-" if owner is None else f"={owner}"


def owner_of(text: str) -> str | None:
    """What `text_of` made a text of."""
    return text[1:] if text.startswith("=") else None


class UsageStore(Protocol):
    """Where counts are kept for some days. Everything raises StoreUnavailable when it cannot be used."""

    def add(self, batch: str, counted: Usages) -> None:
        """Add counts to those that are kept, all or none of them. A `batch` that comes again is not added again."""

    def read(self, first: str, last: str, owners: Collection[str | None] | None, most: int) -> dict[UsageLine, Counts]:
        """All from the day `first` to the day `last`, of `owners` or (None) of everybody; not many more than `most`
        lines."""

    def close(self) -> None:
        """Let go of files and connections."""


class UsageAccounts:
    """Gathers counts and has them written. Thread-safe."""

    def __init__(
        self, store: UsageStore, *, days: int, flush_s: float = FLUSH_S, clock: Callable[[], float] = time.time
    ) -> None:
        """`days`: how many are kept, today's among them. `clock` tells Unix seconds."""
        self._store = store
        self._days = days
        self._flush_s = flush_s
        self._clock = clock
        self._gathered: dict[UsageLine, Counts] = {}
        self._lost = 0
        self._lock = threading.Lock()
        self._batch: tuple[str, Usages] | None = None  # taken out of what is gathered, not yet known to be written
        self._writing = threading.Lock()
        self._stopped = threading.Event()

    def start(self) -> None:
        """Write what is gathered every few seconds, in a thread."""
        threading.Thread(target=self._flush_forever, name="usage", daemon=True).start()

    def add(self, owner: str | None, counted: Iterable[Counted]) -> None:
        """Count something for today. Never waits for a store."""
        day = datetime.fromtimestamp(self._clock(), UTC).date().isoformat()
        with self._lock:
            for kind, name, counts in counted:
                line = UsageLine(day, owner, kind, name)
                if held := self._gathered.get(line):
                    self._gathered[line] = Counts(*map(sum, zip(held, counts, strict=True)))
                elif len(self._gathered) < MOST_GATHERED:
                    self._gathered[line] = counts
                else:
                    self._lost += 1

    def days(self) -> tuple[date, date]:
        """The first and the last day of which anything is kept."""
        today = self._today()
        return today - timedelta(days=self._days - 1), today

    def read(
        self, first: date, last: date, owners: Collection[str | None] | None, most: int
    ) -> dict[UsageLine, Counts]:
        """As UsageStore.read; what this process has gathered is among it. Raises StoreUnavailable."""
        self.flush()
        oldest, today = self.days()
        # Of days that nothing can be kept of a store is not asked. Tomorrow's may be: another machine's clock is ahead.
        first, last = max(first, oldest), min(last, today + timedelta(days=1))
        return self._store.read(first.isoformat(), last.isoformat(), owners, most) if first <= last else {}

    def flush(self) -> None:
        """Write what is gathered. Raises StoreUnavailable; nothing is lost by that, nor counted twice."""
        with self._writing:
            while batch := self._batch or self._take():
                self._batch = batch
                self._store.add(*batch)
                self._batch = None

    def close(self) -> None:
        """Write what is left, and let go of the store."""
        self._stopped.set()
        try:
            self.flush()
        except StoreUnavailable:
            left = len(self._batch[1] if self._batch else ()) + len(self._gathered)
            log.warning("usage: %d counts could not be kept before the end", left)
        self._store.close()

    def _take(self) -> tuple[str, Usages] | None:
        with self._lock:
            gathered, self._gathered = self._gathered, {}
            lost, self._lost = self._lost, 0
        if lost:
            log.warning("usage: %d counts were lost while they could not be written", lost)
        return (secrets.token_hex(16), gathered) if gathered else None

    def _today(self) -> date:
        return datetime.fromtimestamp(self._clock(), UTC).date()

    def _flush_forever(self) -> None:
        while not self._stopped.wait(self._flush_s):
            try:
                with suppress(StoreUnavailable):  # the store has said so
                    self.flush()
            except Exception:
                log.exception("usage could not be written")
