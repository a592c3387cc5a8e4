"""Notices that work is due and nothing moves."""

from __future__ import annotations

import threading
from collections.abc import Callable

_TICK_S = 1.0


class Watchdog:
    """Calls `on_stuck` once, from a thread of its own, when there was no progress for `stuck_s` seconds.

    `progress` gives a number that changes when something was done, None while nothing is due. Time is counted in the
    watchdog's own ticks: a process that was frozen as a whole finds none gone by when it goes on.
    """

    def __init__(self, progress: Callable[[], int | None], stuck_s: float, on_stuck: Callable[[], None]) -> None:
        self._progress = progress
        self._stuck_s = stuck_s
        self._on_stuck = on_stuck
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """No call of `on_stuck` begins after this."""
        self._ended.set()

    def _run(self) -> None:
        tick = min(_TICK_S, self._stuck_s / 4)
        last, still_s = None, 0.0
        while not self._ended.wait(tick):
            now = self._progress()
            still_s = still_s + tick if now is not None and now == last else 0.0
            last = now
            if still_s >= self._stuck_s:
                self._on_stuck()
                return
