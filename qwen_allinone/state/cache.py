"""Answers that need not be computed twice: kept in this process and, where there is one, in Redis for all workers.

Equal requests that come at once compute once: one leads, the others wait for it, each with its own patience. When the
leader fails or is given up, one of those who wait leads in its place. Without Redis each worker does so for itself.
With it a lock that expires tells the other workers that somebody computes.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol, cast

from redis import Redis

from qwen_allinone.away import Away
from qwen_allinone.redis_link import RedisLink

_ENTRY_BYTES = 400  # what an entry costs beside its value: key, tuple, place in the dictionary
_LOOK_S = 0.05  # between two looks at whether a wait still makes sense
# A worker that dies while it computes holds the others up for so long. An answer that takes longer may be computed
# once in each worker.
_LOCK_S = 10.0

# The lock is tried first, so that a replica, which takes no writes, fails at every question and not at some.
_LOOK = """
local free = redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2])
local value = redis.pcall('GET', KEYS[1])
if type(value) == 'table' then
  redis.call('DEL', KEYS[1])
  value = false
end
if value then
  if free then redis.call('DEL', KEYS[2]) end
  return {1, value}
end
if free then return {2, ''} end
return {0, ''}
"""
_STORE = """
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
"""
_UNLOCK = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"
_BUSY, _FOUND, _YOURS = 0, 1, 2


class Patience(Protocol):
    """How long somebody waits for an answer that another computes."""

    def check(self) -> None:
        """Raise if waiting makes no sense any more: too late, or the caller has left."""


def key_of(*parts: str) -> str:
    """One key for exactly these parts; which ends where is part of it."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.hexdigest()


class MemoryCache:
    """The least recently used go when there are too many bytes, the oldest after a time. Thread-safe."""

    def __init__(self, max_bytes: int, ttl_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        self._entries: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: str) -> bytes | None:
        with self._lock:
            ends, value = self._entries.get(key, (0.0, b""))
            if not ends:
                return None
            if ends <= self._clock():
                self._drop(key)
                return None
            self._entries.move_to_end(key)
            return value

    def put(self, key: str, value: bytes) -> None:
        cost = _cost(value)
        if cost > self._max_bytes:  # it would push out everything else, and then itself
            return
        with self._lock:
            self._drop(key)
            self._entries[key] = self._clock() + self._ttl_s, value
            self._bytes += cost
            while self._bytes > self._max_bytes:
                self._drop(next(iter(self._entries)))

    def __len__(self) -> int:
        return len(self._entries)

    def _drop(self, key: str) -> None:
        if entry := self._entries.pop(key, None):
            self._bytes -= _cost(entry[1])


class RedisCache:
    """What all workers share. Every method raises Away where Redis does not answer."""

    def __init__(self, url: str, ttl_s: float) -> None:
        self._ttl_ms = int(ttl_s * 1000)
        self._link = RedisLink(
            url, use="cache", without="this worker remembers for itself", again="workers share their answers"
        )

    def look(self, key: str, token: str) -> tuple[int, bytes]:
        """The value (_FOUND), or that it is the asker's to compute (_YOURS), or that another does (_BUSY)."""
        names, arguments = _names(key), (token, str(int(_LOCK_S * 1000)))
        state, value = self._link.ask(lambda redis: cast("Sequence[object]", redis.eval(_LOOK, 2, *names, *arguments)))
        return cast(int, state), cast(bytes, value)

    def store(self, key: str, token: str, value: bytes) -> None:
        """Keep a value, and give back the lock if it is still `token`'s."""
        self._link.ask(lambda redis: redis.eval(_STORE, 2, *_names(key), token, cast(str, value), str(self._ttl_ms)))

    def unlock(self, key: str, token: str) -> None:
        """Let another compute."""
        self._link.ask(lambda redis: _unlock(redis, key, token))


@dataclass(eq=False)
class _Flight:
    """One computation that others wait for; without a value once it has ended, it has failed."""

    ended: threading.Event = field(default_factory=threading.Event)
    value: bytes | None = None


class SingleFlightCache:
    """Answers as bytes, by key. Never raises for its own sake: at worst everything is computed."""

    def __init__(self, max_bytes: int, ttl_s: float, redis_url: str | None = None) -> None:
        self._max_bytes = max_bytes
        self._memory = MemoryCache(max_bytes, ttl_s)
        self._shared = RedisCache(redis_url, ttl_s) if redis_url else None
        self._flights: dict[str, _Flight] = {}
        self._lock = threading.Lock()

    def fetch(
        self, key: str, good: Callable[[bytes], bool], compute: Callable[[], bytes], patience: Patience
    ) -> tuple[bytes, bool]:
        """The value of `key`, and whether it was there (or came from somebody who computed it meanwhile).

        A kept value that is not `good` counts as none. Raises what `compute` and `patience` raise.
        """
        while True:
            with self._lock:
                value = self._memory.get(key)
                if value is not None:
                    return value, True
                flight = self._flights.get(key)
                if flight is None:
                    mine = self._flights[key] = _Flight()
            if flight is None:
                return self._lead(key, mine, good, compute, patience)
            while not flight.ended.wait(_LOOK_S):
                patience.check()
            if flight.value is not None:
                return flight.value, True

    def put(self, key: str, value: bytes) -> None:
        """Keep a value that was computed without looking."""
        self._keep(key, secrets.token_hex(8), value)

    def _lead(
        self,
        key: str,
        flight: _Flight,
        good: Callable[[bytes], bool],
        compute: Callable[[], bytes],
        patience: Patience,
    ) -> tuple[bytes, bool]:
        """Get the value for all of this worker who wait for it."""
        token = secrets.token_hex(8)
        try:
            value = self._from_others(key, token, good, patience)
            found = value is not None
            if value is None:
                value = compute()
                self._keep(key, token, value)
            else:
                self._memory.put(key, value)
            flight.value = value
            return value, found
        finally:
            if flight.value is None and self._shared:
                with suppress(Away):
                    self._shared.unlock(key, token)
            with self._lock:
                del self._flights[key]
            flight.ended.set()

    def _from_others(self, key: str, token: str, good: Callable[[bytes], bool], patience: Patience) -> bytes | None:
        """What another worker has computed or is computing; None: it is ours to compute."""
        while self._shared:
            try:
                state, value = self._shared.look(key, token)
            except Away:
                return None
            if state == _FOUND:
                return value if len(value) <= self._max_bytes and good(value) else None
            if state == _YOURS:
                return None
            patience.check()
            time.sleep(_LOOK_S)
        return None

    def _keep(self, key: str, token: str, value: bytes) -> None:
        self._memory.put(key, value)
        if self._shared:
            with suppress(Away):
                self._shared.store(key, token, value)


def _unlock(redis: Redis, key: str, token: str) -> None:
    redis.eval(_UNLOCK, 1, _names(key)[1], token)


def _names(key: str) -> tuple[str, str]:
    """In one hash slot, as a cluster wants it."""
    return f"qaio:answer:{{{key}}}", f"qaio:answer:{{{key}}}:lock"


def _cost(value: bytes) -> int:
    return _ENTRY_BYTES + len(value)
