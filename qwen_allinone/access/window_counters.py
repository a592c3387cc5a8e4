"""How much each caller has had in the current window: counted in Redis for all workers, else in this process.

No request fails or waits for a Redis that is gone: after the first failure counting goes on here, from the numbers
last seen there, and Redis is tried again every two seconds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

from redis import Redis

from qwen_allinone.away import Away
from qwen_allinone.redis_link import RedisLink

# One round trip, one atomic step. The window begins with its first count. A time to live that is longer than a window
# comes of a clock that was set back; without the repair a caller would be shut out for as long as the clock jumped.
_ADD = """
local used = redis.call('INCRBY', KEYS[1], ARGV[1])
local left = redis.call('PTTL', KEYS[1])
if left < 0 or left > tonumber(ARGV[2]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  left = tonumber(ARGV[2])
end
return {used, left}
"""


@dataclass(frozen=True)
class Window:
    """What was used since the window began, and the seconds until the next one."""

    used: int
    resets_in_s: float


class MemoryRateCounters:
    """Counts of this process, on a clock that nobody can set."""

    def __init__(self, length_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._length_s = length_s
        self._clock = clock
        self._windows: dict[str, tuple[int, float]] = {}  # used, and when the window ends
        self._sweep_at = clock() + length_s
        self._lock = threading.Lock()

    def add(self, key: str, amount: int) -> Window:
        """Count `amount` (0: just look) and return the window as it is then."""
        with self._lock:
            now = self._clock()
            self._sweep(now)
            used, ends = self._windows.get(key, (0, now))
            if ends <= now:
                used, ends = 0, now + self._length_s
            self._windows[key] = used + amount, ends
            return Window(used + amount, ends - now)

    def take_over(self, key: str, window: Window) -> None:
        """Go on from what was counted elsewhere."""
        with self._lock:
            now = self._clock()
            self._sweep(now)
            self._windows[key] = window.used, now + window.resets_in_s

    def __len__(self) -> int:
        return len(self._windows)

    def _sweep(self, now: float) -> None:
        """Once a window, drop what has ended: callers who never come back must not pile up."""
        if now >= self._sweep_at:
            self._windows = {key: entry for key, entry in self._windows.items() if entry[1] > now}
            self._sweep_at = now + self._length_s


class RedisRateCounters:
    """Counts that all workers share."""

    def __init__(self, url: str, length_s: float) -> None:
        self._length_ms = int(length_s * 1000)
        self._link = RedisLink(
            url, use="limits", without="this worker counts for itself", again="workers count together"
        )

    def add(self, key: str, amount: int) -> Window:
        """Count, and return the window as it is then; raises Away."""
        arguments = (f"qaio:window:{key}", str(amount), str(self._length_ms))

        def count(redis: Redis) -> Window:
            used, left = cast("list[int]", redis.eval(_ADD, 1, *arguments))
            return Window(int(used), int(left) / 1000)

        return self._link.ask(count)


class RateCounters:
    """The counts that limits ask: shared where that works, this process's own otherwise."""

    def __init__(self, length_s: float, redis_url: str | None = None) -> None:
        self._local = MemoryRateCounters(length_s)
        self._shared = RedisRateCounters(redis_url, length_s) if redis_url else None

    def add(self, key: str, amount: int) -> Window:
        """Count `amount` (0: just look) and return the window as it is then. Never raises, waits 0.1 s at most."""
        if self._shared is not None:
            with suppress(Away):
                window = self._shared.add(key, amount)
                self._local.take_over(key, window)
                return window
        return self._local.add(key, amount)
