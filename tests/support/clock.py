"""Time that passes when told: stands in for time.monotonic or time.time."""

from __future__ import annotations


class Clock:
    """Says `now`, in seconds, until it is set anew."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
