"""How much of the interpreter one caller's large requests take while others are about.

Python runs one thread at a time, and the engine's comes back to it dozens of times a step: each time it waits for
whoever computes in Python, and for each of several in turn. So large pieces of such work are done one at a time, and
while another caller is about one's pieces take a quarter of the time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from qwen_allinone.errors import ServerBusy

# A caller rests so many times as long as he has worked, and for so long at most.
_RESTS, _LONGEST_S = 3.0, 0.25
# Callers whose rest is over are forgotten once there are so many.
_MOST_KEPT = 1000


class Pace:
    """Keeps count of each caller's rest. Thread-safe."""

    def __init__(
        self,
        others_about: Callable[[str | None], bool],
        *,
        clock: Callable[[], float] = time.monotonic,
        work_clock: Callable[[], float] = time.thread_time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`others_about` says whether anybody but a caller has, or had a moment ago, something computed.

        `clock` and `work_clock` give seconds: those that pass, and those that this thread has computed.
        """
        self._others_about = others_about
        self._clock, self._work_clock, self._sleep = clock, work_clock, sleep
        self._lock = threading.Lock()
        self._one_at_a_time = threading.Lock()
        self._free_at = dict[str | None, float]()
        self._resting = set[str | None]()

    def rest(self, caller: str | None) -> None:
        """Wait out the rest of `caller`, before he may begin something large; none where nobody else is about.

        Raises:
            ServerBusy: another thread of his waits already. Threads are for all.
        """
        rest_s = self._rest_s(caller)
        if rest_s <= 0:
            return
        with self._lock:
            if caller in self._resting:
                raise ServerBusy()
            self._resting.add(caller)
        try:
            self._sleep(rest_s)
        finally:
            with self._lock:
                self._resting.discard(caller)

    def worked(self, caller: str | None, seconds: float) -> None:
        """Note that a thread of `caller` has computed for `seconds`."""
        with self._lock:
            now = self._clock()
            if len(self._free_at) >= _MOST_KEPT:
                self._free_at = {other: at for other, at in self._free_at.items() if at > now}
            free_at = max(self._free_at.get(caller, 0.0), now) + _RESTS * seconds
            self._free_at[caller] = min(free_at, now + _LONGEST_S)

    @contextmanager
    def piece(self, caller: str | None) -> Iterator[None]:
        """Do one of many pieces of a request of `caller` in the block, when it is its turn."""
        if (rest_s := self._rest_s(caller)) > 0:
            self._sleep(rest_s)
        with self._one_at_a_time:
            began = self._work_clock()
            try:
                yield
            finally:
                self.worked(caller, self._work_clock() - began)

    def began(self) -> float:
        """What `since` is to be told later, in the same thread."""
        return self._work_clock()

    def since(self, began: float) -> float:
        """Seconds that this thread has computed since then."""
        return self._work_clock() - began

    def _rest_s(self, caller: str | None) -> float:
        with self._lock:
            rest_s = self._free_at.get(caller, 0.0) - self._clock()
        return rest_s if rest_s > 0 and self._others_about(caller) else 0.0
