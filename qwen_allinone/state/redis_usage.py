"""Usage in Redis or Valkey, for workers of several machines.

For each day the set of its owners, and for each of these a hash of numbers by what they count.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import date, timedelta
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from redis import Redis
from redis.client import Pipeline

from qwen_allinone.away import Away
from qwen_allinone.errors import UsageUnavailable
from qwen_allinone.redis_link import RedisLink
from qwen_allinone.state.usage import Counts, UsageLine, Usages, owner_of, text_of

T = TypeVar("T")

_TIMEOUT_S = 1.0
_DAY_S = 86_400
_HOME = "qaio:{usage}"  # one hash slot, so that a batch is one script
_DAYS = 31  # whose owners are one question
_LINES = 500  # of one script, and hashes of one question: Redis does nothing else meanwhile

# KEYS[1]: the batch; then for each line the day's owners and the owner's hash. ARGV: how long the batch is known, in
# seconds, and the numbers are kept; then for each line the owner, its field, and the numbers.
_ADD = f"""
if not redis.call('SET', KEYS[1], '1', 'NX', 'EX', ARGV[1]) then return 0 end
for line = 1, (#KEYS - 1) / 2 do
  local owners, hash, at = KEYS[line * 2], KEYS[line * 2 + 1], 3 + (line - 1) * {2 + len(Counts._fields)}
  redis.call('SADD', owners, ARGV[at])
  for number = 1, {len(Counts._fields)} do
    redis.call('HINCRBY', hash, ARGV[at + 1] .. ':' .. number, ARGV[at + 1 + number])
  end
  redis.call('EXPIRE', owners, ARGV[2])
  redis.call('EXPIRE', hash, ARGV[2])
end
return 1
"""


class RedisUsage:
    """A `UsageStore`. A batch that Redis took without saying so in time is known again for a day."""

    def __init__(self, url: str, *, days: int, timeout_s: float = _TIMEOUT_S) -> None:
        self._link = RedisLink(
            url,
            use="usage",
            without="counts wait in memory, questions for usage are answered 503",
            again="what waited is written",
            timeout_s=timeout_s,
        )
        self._kept_s = str((days + 1) * _DAY_S)

    def add(self, batch: str, counted: Usages) -> None:
        for number, lines in enumerate(_parts(list(counted.items()))):
            keys, arguments = [f"{_HOME}:batch:{batch}:{number}"], [str(_DAY_S), self._kept_s]
            for line, counts in lines:
                keys += [_owners_of(line.day), _hash_of(line.day, line.owner)]
                arguments += [text_of(line.owner), f"{line.kind}:{line.name}", *map(str, counts)]
            self._ask(partial(_add, keys, arguments))

    def read(self, first: str, last: str, owners: Collection[str | None] | None, most: int) -> dict[UsageLine, Counts]:
        found: dict[UsageLine, Counts] = {}
        places_in_order = self._places(first, last, owners)
        while len(found) <= most and (places := list(islice(places_in_order, _LINES))):
            hashes = self._all(Pipeline.hgetall, [_hash_of(*place) for place in places])
            for place, numbers in zip(places, hashes, strict=True):
                found |= _lines_of(place, numbers)
        return found

    def close(self) -> None:
        """Nothing is held open that matters."""

    def _places(self, first: str, last: str, owners: Collection[str | None] | None) -> Iterator[tuple[str, str | None]]:
        """Days with the owners that may have a hash there, in order; asked for as far as they are taken."""
        begins, ends = date.fromisoformat(first), date.fromisoformat(last)
        days = ((begins + timedelta(days=number)).isoformat() for number in range((ends - begins).days + 1))
        if owners is not None:
            yield from ((day, owner) for day in days for owner in sorted(owners, key=text_of))
            return
        while some := list(islice(days, _DAYS)):
            there = self._all(Pipeline.smembers, [_owners_of(day) for day in some])
            for day, members in zip(some, there, strict=True):
                yield from ((day, owner_of(text)) for text in sorted(text.decode() for text in members))

    def _all(self, question: Callable[[Pipeline, str], Any], names: Sequence[str]) -> list[Any]:
        """What `question` gets of each name, in one round trip."""

        def ask(redis: Redis) -> list[Any]:
            pipe = redis.pipeline(transaction=False)
            for name in names:
                question(pipe, name)
            return pipe.execute()

        return self._ask(ask)

    def _ask(self, question: Callable[[Redis], T]) -> T:
        try:
            return self._link.ask(question)
        except Away as error:
            raise UsageUnavailable() from error


def _add(keys: Sequence[str], arguments: Sequence[str], redis: Redis) -> None:
    redis.eval(_ADD, len(keys), *keys, *arguments)


def _lines_of(place: tuple[str, str | None], numbers: Any) -> dict[UsageLine, Counts]:
    """What a hash says: fields `kind:name:number`, as _ADD writes them."""
    day, owner = place
    counted: dict[tuple[str, str], list[int]] = {}
    for field, value in numbers.items():
        what, _, number = field.decode().rpartition(":")
        kind, _, name = what.partition(":")
        counted.setdefault((kind, name), [0] * len(Counts._fields))[int(number) - 1] = int(value)
    return {
        UsageLine(day, owner, "route" if kind == "route" else "task", name): Counts(*counted[kind, name])
        for kind, name in sorted(counted)
    }


def _owners_of(day: str) -> str:
    return f"{_HOME}:{day}"


def _hash_of(day: str, owner: str | None) -> str:
    return f"{_HOME}:{day}:{text_of(owner)}"


def _parts(everything: list[T]) -> list[list[T]]:
    return [everything[begin : begin + _LINES] for begin in range(0, len(everything), _LINES)]
