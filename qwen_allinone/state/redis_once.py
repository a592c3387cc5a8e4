"""Answers to requests with a key of their client's, in Redis or Valkey, for workers of several machines.

A hash for each key, and for each owner the kept ones by age, their sizes and the sum of them. All share the owner's
hash tag, so each step is one script.
"""

from __future__ import annotations

import math
from typing import Any

from qwen_allinone.away import Away
from qwen_allinone.errors import OnceBusy, OnceMismatch, OnceUnavailable
from qwen_allinone.redis_link import RedisLink
from qwen_allinone.state.conversations import now
from qwen_allinone.state.lease import Lease, is_dead
from qwen_allinone.state.once import AROUND_BYTES

_TIMEOUT_S = 1.0  # most that one request waits for Redis; without it nothing can be promised

# KEYS[1]: the hash. ARGV: what is asked, lease, its milliseconds, the most these can be, a holder that is dead.
_BEGIN = """
local known = redis.call('HGET', KEYS[1], 'asked')
if known then
  local answer = redis.call('HGET', KEYS[1], 'answer')
  local left = redis.call('PTTL', KEYS[1])
  local holder = redis.call('HGET', KEYS[1], 'lease')
  local held = not answer and holder ~= ARGV[5] and left <= tonumber(ARGV[4])
  if known ~= ARGV[1] and (held or answer) then return {'other', holder or ''} end
  if answer then return {'answer', answer} end
  if held then return {'busy', holder} end
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'asked', ARGV[1], 'lease', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {'held', ''}
"""
# KEYS: the hash, the owner's by age, sizes, sum. ARGV: lease, answer, time to live, its size, the most all may take,
# now in ms.
_KEEP = """
if redis.call('HGET', KEYS[1], 'lease') ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], 'lease')
redis.call('HSET', KEYS[1], 'answer', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('ZADD', KEYS[2], ARGV[6], KEYS[1])
redis.call('DECRBY', KEYS[4], redis.call('HGET', KEYS[3], KEYS[1]) or 0)
redis.call('HSET', KEYS[3], KEYS[1], ARGV[4])
local used = redis.call('INCRBY', KEYS[4], ARGV[4])
local function drop(key)
  used = redis.call('DECRBY', KEYS[4], redis.call('HGET', KEYS[3], key) or 0)
  redis.call('HDEL', KEYS[3], key)
  redis.call('ZREM', KEYS[2], key)
end
for _, key in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[6] - ARGV[3], 'LIMIT', 0, 100)) do
  drop(key)
end
while used > tonumber(ARGV[5]) do
  local oldest = redis.call('ZRANGE', KEYS[2], 0, 0)[1]
  if not oldest then break end
  redis.call('DEL', oldest)
  drop(oldest)
end
for number = 2, 4 do redis.call('PEXPIRE', KEYS[number], ARGV[3]) end
return 1
"""
# KEYS[1]: the hash. ARGV[1]: lease.
_RELEASE = "if redis.call('HGET', KEYS[1], 'lease') == ARGV[1] then redis.call('DEL', KEYS[1]) end"


class RedisOnce:
    """An `OnceStore`. While Redis is gone, one request every two seconds waits for it; the others are told at once."""

    def __init__(self, url: str, *, ttl_s: float, owner_mb: int, timeout_s: float = _TIMEOUT_S) -> None:
        self._link = RedisLink(
            url,
            use="idempotency keys",
            without="requests with an Idempotency-Key are answered 503",
            again="answers are kept",
            timeout_s=timeout_s,
        )
        self._ttl_ms = str(math.ceil(ttl_s * 1000))
        self._owner_bytes = owner_mb * 1_000_000

    def begin(self, key: str, owner: str | None, asked: str, lease: Lease) -> bytes | None:
        given = (asked, lease.token, _ms(lease.seconds), _ms(lease.longest_s))
        state, value = self._ask(_BEGIN, 1, key, owner, *given, "")
        if state in (b"busy", b"other") and value and is_dead(value.decode()):
            state, value = self._ask(_BEGIN, 1, key, owner, *given, value)
        if state == b"other":
            raise OnceMismatch()
        if state == b"busy":
            raise OnceBusy()
        return bytes(value) if state == b"answer" else None

    def keep(self, key: str, owner: str | None, answer: bytes, lease: Lease) -> None:
        size = len(answer) + AROUND_BYTES
        if size > self._owner_bytes:
            self.release(key, owner, lease)
            return
        bounds = (self._ttl_ms, str(size), str(self._owner_bytes), str(math.ceil(now() * 1000)))
        self._ask(_KEEP, 4, key, owner, lease.token, answer, *bounds)

    def release(self, key: str, owner: str | None, lease: Lease) -> None:
        self._ask(_RELEASE, 1, key, owner, lease.token)

    def _ask(self, script: str, keys: int, key: str, owner: str | None, *arguments: str | bytes) -> Any:
        # No caller's name can read like the absence of one.
        home = f"qaio:once:{{{'-' if owner is None else f'={owner}'}}}"
        names = (f"{home}:key:{key}", f"{home}:ages", f"{home}:sizes", f"{home}:sum")[:keys]
        try:
            return self._link.ask(lambda redis: redis.eval(script, keys, *names, *arguments))
        except Away as error:
            raise OnceUnavailable() from error


def _ms(seconds: float) -> str:
    return str(max(1, math.ceil(seconds * 1000)))
