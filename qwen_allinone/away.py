"""A server that may be away, as Redis or PostgreSQL: left alone once it does not answer, and tried again by one request
every few seconds."""

from __future__ import annotations

import threading
import time

_RETRY_S = 2.0  # between two tries to reach a lost server


class Away(Exception):
    """The server does not answer, or did not lately, or does not do what it was asked. Never reaches a client."""


class Reach:
    """Whether a server is to be asked. Thread-safe."""

    def __init__(self) -> None:
        self._is_there = True
        self._try_at = 0.0
        self._lock = threading.Lock()

    def check(self) -> None:
        """Raise Away unless the server answers, as far as is known, or it is this request's turn to find out."""
        with self._lock:
            if self._is_there:
                return
            if time.monotonic() < self._try_at:
                raise Away
            self._try_at = time.monotonic() + _RETRY_S

    def lost(self) -> bool:
        """Note that it does not answer; True if it did until now."""
        with self._lock:
            self._try_at = time.monotonic() + _RETRY_S
            was_there, self._is_there = self._is_there, False
            return was_there

    def found(self) -> bool:
        """Note that it answers; True if it did not until now."""
        with self._lock:
            was_there, self._is_there = self._is_there, True
            return not was_there
