"""A Redis that may be away: asked with a short timeout, given up at once, tried again every two seconds."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

log = logging.getLogger(__name__)

T = TypeVar("T")

_TIMEOUT_S = 0.1  # most that one request waits for Redis where it can do without
_RETRY_S = 2.0  # between two tries to reach a lost Redis


class Away(Exception):
    """Redis does not answer, or did not lately. Never reaches a client."""


class RedisLink:
    """One use of a Redis or Valkey: no request fails for its sake, and few wait."""

    def __init__(self, url: str, *, use: str, without: str, again: str, timeout_s: float | None = None) -> None:
        """`use` begins the log lines; `without` and `again` end them: what holds while it is away, and afterwards.

        A question waits `timeout_s` seconds at most, 0.1 unless told otherwise.
        """
        timeout_s = _TIMEOUT_S if timeout_s is None else timeout_s
        self._redis = Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),  # the caller has a better plan than to wait
            protocol=2,  # spares a new connection a question
            driver_info=None,  # and two more
        )
        self._use, self._without, self._again = use, without, again
        self._joined = True
        self._try_at = 0.0
        self._lock = threading.Lock()

    def ask(self, question: Callable[[Redis], T]) -> T:
        """What `question` gets from Redis.

        Raises:
            Away: it failed, or failed lately.
        """
        if not self._may_try():
            raise Away
        try:
            answer = question(self._redis)
        except (RedisError, OSError, ValueError) as error:
            self._leave(error)
            raise Away from None
        self._join()
        return answer

    def _may_try(self) -> bool:
        """Always while Redis answers; else one request every few seconds finds out."""
        with self._lock:
            if self._joined:
                return True
            if time.monotonic() < self._try_at:
                return False
            self._try_at = time.monotonic() + _RETRY_S
            return True

    def _leave(self, error: Exception) -> None:
        with self._lock:
            self._try_at = time.monotonic() + _RETRY_S
            was_joined, self._joined = self._joined, False
        if was_joined:
            # Not the message: it may name the address, or what a stranger sent.
            log.warning("%s: Redis does not answer (%s); %s", self._use, type(error).__name__, self._without)

    def _join(self) -> None:
        with self._lock:
            was_joined, self._joined = self._joined, True
        if not was_joined:
            log.info("%s: Redis answers again; %s", self._use, self._again)
