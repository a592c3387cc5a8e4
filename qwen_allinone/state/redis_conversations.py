"""Sessions in Redis or Valkey, for workers of several machines.

Three keys a session, which expire by themselves: a hash with whose it is, a list of its turns, a lease. They share a
hash tag, so that a cluster keeps them together. What must be one step is one script.

Three more for each owner: the bytes of each session, when it expires, and the sum. They are another tag's, so a step on
a session and its share of the sum are two; what a crash between them leaves goes when the session would.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from qwen_allinone.away import Away
from qwen_allinone.errors import OwnerFull, SessionBusy, SessionNotFound, StoreUnavailable
from qwen_allinone.redis_link import RedisLink
from qwen_allinone.state.conversations import AROUND_BYTES, Session, Turn, checked_date, now
from qwen_allinone.state.lease import Lease, is_dead

log = logging.getLogger(__name__)

_TIMEOUT_S = 1.0  # most that one request waits for Redis; a conversation cannot go on without it

# In all of them KEYS: hash, turns, lease. ARGV[1]: the owner.
_CREATE = """
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'created', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('SET', KEYS[3], ARGV[4], 'PX', ARGV[5])
return 1
"""
# ARGV: owner, time to live, lease, its milliseconds, the most these can be, a holder that is dead.
# A lease that ends later than any can is of a clock that was set back since.
_BEGIN = """
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return {'missing'} end
local holder = redis.call('GET', KEYS[3])
if holder and holder ~= ARGV[6] then
  local left = redis.call('PTTL', KEYS[3])
  if left > 0 and left <= tonumber(ARGV[5]) then return {'busy', holder, left} end
end
redis.call('SET', KEYS[3], ARGV[3], 'PX', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return {'held', redis.call('HGET', KEYS[1], 'created'), redis.call('LRANGE', KEYS[2], 0, -1)}
"""
# ARGV: the turn, its number, time to live, lease.
_APPEND = """
local owner = redis.call('HGET', KEYS[1], 'owner')
if not owner then return {'missing'} end
if redis.call('LLEN', KEYS[2]) ~= tonumber(ARGV[2]) then return {'busy'} end
redis.call('RPUSH', KEYS[2], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
if redis.call('GET', KEYS[3]) == ARGV[4] then redis.call('DEL', KEYS[3]) end
return {'kept', owner}
"""
# ARGV: lease.
_RELEASE = """
if redis.call('GET', KEYS[3]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[3])
if redis.call('LLEN', KEYS[2]) == 0 then redis.call('DEL', KEYS[1]) end
return 1
"""
_READ = """
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return {'missing'} end
local turns = redis.call('LRANGE', KEYS[2], 0, -1)
return {'read', redis.call('HGET', KEYS[1], 'created'), turns, redis.call('PTTL', KEYS[1])}
"""
_DELETE = """
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 'missing' end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
return 'deleted'
"""

# KEYS: sizes, expiries, sum. ARGV: now in ms, how many expired sessions to count out at most.
_USED = """
local expired = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
for _, id in ipairs(expired) do
  redis.call('DECRBY', KEYS[3], redis.call('HGET', KEYS[1], id) or 0)
  redis.call('HDEL', KEYS[1], id)
  redis.call('ZREM', KEYS[2], id)
end
return {tonumber(redis.call('GET', KEYS[3]) or 0), #expired}
"""
# ARGV: session, bytes more, when it expires in ms, time to live.
_GROWN = """
redis.call('HINCRBY', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
redis.call('INCRBY', KEYS[3], ARGV[2])
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[4]) end
"""
# ARGV: session.
_GONE = """
local size = redis.call('HGET', KEYS[1], ARGV[1])
if size then
  redis.call('DECRBY', KEYS[3], size)
  redis.call('HDEL', KEYS[1], ARGV[1])
  redis.call('ZREM', KEYS[2], ARGV[1])
end
"""
_COUNTED_OUT, _MOST_TIMES = 1000, 100


@contextmanager
def _understood() -> Iterator[None]:
    """What stands in Redis may be anything: others can write there."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        log.error("sessions: Redis holds something that is none of ours")
        raise StoreUnavailable() from error


class RedisStore:
    """A `Store`. While Redis is gone, one request every two seconds waits for it; the others are told at once."""

    def __init__(self, url: str, *, ttl_s: float, owner_mb: int = 100, timeout_s: float = _TIMEOUT_S) -> None:
        self._link = RedisLink(
            url,
            use="sessions",
            without="requests with a session are answered 503",
            again="conversations go on",
            timeout_s=timeout_s,
        )
        self._ttl_ms = str(math.ceil(ttl_s * 1000))
        self._owner_mb = owner_mb

    def create(self, id: str, owner: str | None, lease: Lease) -> None:
        self._check_share(owner)
        self._ask(_CREATE, id, _owner(owner), repr(now()), self._ttl_ms, lease.token, _ms(lease.seconds))

    @_understood()
    def begin(self, id: str, owner: str | None, lease: Lease) -> Session:
        self._check_share(owner)
        given = (_owner(owner), self._ttl_ms, lease.token, _ms(lease.seconds), _ms(lease.longest_s))
        reply = self._ask(_BEGIN, id, *given, "")
        if reply[0] == b"busy" and is_dead(reply[1].decode()):
            reply = self._ask(_BEGIN, id, *given, reply[1])
        if reply[0] == b"missing":
            raise SessionNotFound()
        if reply[0] == b"busy":
            raise SessionBusy()
        self._grown(owner, id, 0)
        return _session(id, reply[1], reply[2], int(self._ttl_ms))

    @_understood()
    def append(self, id: str, turn: Turn, number: int, lease: Lease) -> None:
        document = turn.dump()
        reply = self._ask(_APPEND, id, document, str(number), self._ttl_ms, lease.token)
        if reply[0] == b"missing":
            raise SessionNotFound()
        if reply[0] == b"busy":
            raise SessionBusy()
        self._grown(_name(reply[1]), id, len(document.encode()) + AROUND_BYTES)

    def release(self, id: str, lease: Lease) -> None:
        self._ask(_RELEASE, id, lease.token)

    @_understood()
    def read(self, id: str, owner: str | None) -> Session:
        reply = self._ask(_READ, id, _owner(owner))
        if reply[0] == b"missing":
            raise SessionNotFound()
        return _session(id, reply[1], reply[2], int(reply[3]))

    def delete(self, id: str, owner: str | None) -> None:
        if self._ask(_DELETE, id, _owner(owner)) == b"missing":
            raise SessionNotFound()
        with suppress(StoreUnavailable):
            self._ask_of(owner, _GONE, id)

    @_understood()
    def _check_share(self, owner: str | None) -> None:
        """Raises OwnerFull. Looked at before a turn is computed: those under way may still be kept."""
        if owner is None:
            return
        for _ in range(_MOST_TIMES):
            used, counted_out = self._ask_of(owner, _USED, _ms(now()), str(_COUNTED_OUT))
            if used < self._owner_mb * 1_000_000:
                return
            if counted_out < _COUNTED_OUT:
                break
        raise OwnerFull(self._owner_mb)

    def _grown(self, owner: str | None, id: str, size: int) -> None:
        """Count `size` more bytes of a session, which lasts from now. What is done is done, counted or not."""
        expires = math.ceil(now() * 1000 + int(self._ttl_ms))
        with suppress(StoreUnavailable):
            self._ask_of(owner, _GROWN, id, str(size), str(expires), self._ttl_ms)

    def _ask(self, script: str, id: str, *arguments: str | bytes) -> Any:
        keys = (f"qaio:session:{{{id}}}", f"qaio:session:{{{id}}}:turns", f"qaio:session:{{{id}}}:lease")
        try:
            return self._link.ask(lambda redis: redis.eval(script, len(keys), *keys, *arguments))
        except Away as error:
            raise StoreUnavailable() from error

    def _ask_of(self, owner: str | None, script: str, *arguments: str) -> Any:
        """A step on what is counted of an owner; None where nothing is, for there are no keys."""
        if owner is None:
            return None
        keys = [f"qaio:owner:{{{owner}}}:{what}" for what in ("sizes", "expiries", "sum")]
        try:
            return self._link.ask(lambda redis: redis.eval(script, len(keys), *keys, *arguments))
        except Away as error:
            raise StoreUnavailable() from error


def _session(id: str, created: bytes, turns: list[bytes], left_ms: int) -> Session:
    return Session(id, checked_date(float(created)), now() + left_ms / 1000, tuple(map(Turn.load, turns)))


def _owner(owner: str | None) -> str:
    """No caller's name can read like the absence of one."""
    return "-" if owner is None else f"={owner}"


def _name(owner: bytes) -> str | None:
    """Whose `_owner` this is."""
    return owner.decode().removeprefix("=") if owner != b"-" else None


def _ms(seconds: float) -> str:
    return str(max(1, math.ceil(seconds * 1000)))
