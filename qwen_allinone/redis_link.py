"""How this service talks to Redis or Valkey: no retries, and one that is lost is asked again every few seconds only."""

from __future__ import annotations

import threading
import time

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

_RETRY_S = 2.0  # between two tries to reach a lost Redis


def connect(url: str, timeout_s: float) -> Redis:
    """A client, not connected yet. Whatever fails shows within `timeout_s` as RedisError, OSError or ValueError."""
    return Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),  # the caller has a better plan than to wait
        protocol=2,  # spares a new connection a question
        driver_info=None,  # and two more
    )


class Breaker:
    """Spares requests the wait for a Redis that is gone. Thread-safe."""

    def __init__(self) -> None:
        self._joined = True
        self._try_at = 0.0
        self._lock = threading.Lock()

    def may_try(self) -> bool:
        """Always while Redis answers; else one request every few seconds finds out."""
        with self._lock:
            if self._joined:
                return True
            if time.monotonic() < self._try_at:
                return False
            self._try_at = time.monotonic() + _RETRY_S
            return True

    def failed(self) -> bool:
        """Note that it did not answer; whether that is news."""
        with self._lock:
            self._try_at = time.monotonic() + _RETRY_S
            was_joined, self._joined = self._joined, False
        return was_joined

    def worked(self) -> bool:
        """Note that it did; whether that is news."""
        with self._lock:
            was_joined, self._joined = self._joined, True
        return not was_joined
