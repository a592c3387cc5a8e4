"""A Redis that may be away: asked with a short timeout, given up at once, tried again every two seconds."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from qwen_allinone.away import Away, Reach

log = logging.getLogger(__name__)

T = TypeVar("T")

_TIMEOUT_S = 0.1  # most that one request waits for Redis where it can do without


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
        self._reach = Reach()

    def ask(self, question: Callable[[Redis], T]) -> T:
        """What `question` gets from Redis.

        Raises:
            Away: it failed, or failed lately.
        """
        self._reach.check()
        try:
            answer = question(self._redis)
        except (RedisError, OSError, ValueError) as error:
            if self._reach.lost():
                # Not the message: it may name the address, or what a stranger sent.
                log.warning("%s: Redis does not answer (%s); %s", self._use, type(error).__name__, self._without)
            raise Away from None
        if self._reach.found():
            log.info("%s: Redis answers again; %s", self._use, self._again)
        return answer
