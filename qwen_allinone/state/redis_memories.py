"""Memories in Redis or Valkey, for workers of several machines.

Each step is one script (redis_memory_steps.py). Vectors are read as they are and compared here, exactly, as of a file:
for some thousands of memories of a user.
"""

from __future__ import annotations

import json
import logging
import math
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast
from urllib.parse import quote, unquote

from redis import Redis
from redis.exceptions import ResponseError

from qwen_allinone.away import Away
from qwen_allinone.errors import MemoryFull, MemoryNotFound, MemoryUnavailable
from qwen_allinone.redis_link import RedisLink
from qwen_allinone.state import redis_memory_steps as steps
from qwen_allinone.state.likeness import likest
from qwen_allinone.state.memories import Held, Memory, Note, Source, Statement, Whose, form, now, topic

log = logging.getLogger(__name__)

_TIMEOUT_S = 1.0  # most that one request waits for Redis; what is remembered cannot be known without it
# Removed at a time whenever something is kept.
_SWEEP = 8
# Seconds between two times that Redis is asked to write its files anew.
ERASE_EVERY_S = 10.0
_NOBODY = Whose(None, "")


class RedisMemories:
    """A `MemoryStore`. A user has `most` statements and as many notes: the oldest make room, replaced ones first.

    While Redis is gone, one request every two seconds waits for it; the others are told at once.
    """

    def __init__(
        self,
        url: str,
        *,
        ttl_s: float,
        most: int,
        owner_mb: int = 100,
        timeout_s: float = _TIMEOUT_S,
        erase_every_s: float = ERASE_EVERY_S,
    ) -> None:
        self._link = RedisLink(
            url,
            use="memories",
            without="requests with a user, and /v1/memory, are answered 503",
            again="memories can be read and kept",
            timeout_s=timeout_s,
        )
        self._ttl_s = ttl_s
        self._most = str(most)
        self._owner_mb = owner_mb
        self._erase_every_s = erase_every_s
        self._refusal = ""

    def check_room(self, whose: Whose) -> None:
        with _understood():
            taken = int(self._ask_redis(lambda redis: redis.get(_key("share", whose))) or 0)
        if whose.owner and taken >= self._owner_mb * 1_000_000:
            raise MemoryFull(self._owner_mb)

    def add(self, whose: Whose, text: str) -> Memory:
        self._sweep()
        bounds = (self._most, str(self._owner_mb * 1_000_000))
        with _understood():
            kept = self._ask(steps.ADD, whose, *bounds, *self._statement(text, "hand", None, now()))
            if kept is not None:
                return _memory(kept)
        raise MemoryFull(self._owner_mb)

    def all(self, whose: Whose) -> list[Memory]:
        with _understood():
            rows, moods, ages, expiries, replaced = (_pairs(part) for part in self._ask(steps.ALL, whose))
            found = (
                _memory((id, rows[id], moods.get(id, b""), at, expiries[id], replaced.get(id, b"")))
                for id, at in ages.items()
            )
            return [memory for memory in found if memory.expires > now()]

    def held(self, whose: Whose, model: str) -> Held:
        with _understood():
            newest, replaced, there, rows, vectors = self._ask(steps.HELD, whose)
            texts, known, begins = _pairs(rows), _pairs(vectors), f"{quote(model)}\n".encode()
            hold = set(there) - set(replaced)
            ids = [id for id in newest if id in hold]
            of_model = [kept[len(begins) :] if (kept := known.get(id, b"")).startswith(begins) else None for id in ids]
            return Held([Statement(id.decode(), _text(texts[id])) for id in ids], partial(_likest, of_model))

    def delete(self, whose: Whose, id: str) -> None:
        if not self._ask(steps.DELETE, whose, id):
            raise MemoryNotFound()
        self.erase()

    def forget(self, whose: Whose) -> int:
        count = int(self._ask(steps.FORGET, whose))
        self.erase()
        return count

    def note(self, whose: Whose, text: str, mood: str | None) -> None:
        document = {"who": _who(whose), "text": text, "mood": mood, "at": now()}
        self._ask(steps.NOTE, whose, self._most, json.dumps(document, ensure_ascii=False))

    def take(self, hold_s: float) -> Note | None:
        with _understood():
            taken = self._ask(steps.TAKE, _NOBODY, repr(now() + hold_s))
            if taken is None:
                return None
            number, document, tries = taken
            said = json.loads(document)
            return Note(int(number), _whose(said["who"])[0], said["text"], said["mood"], float(said["at"]), tries)

    def settle(self, note: Note, texts: Sequence[str]) -> None:
        self._sweep()
        statements = [part for text in texts for part in self._statement(text, "chat", note.mood, note.at)]
        self._ask(steps.SETTLE, note.whose, self._most, _number(note), *statements)

    def put_back(self, note: Note, wait_s: float, *, tried: bool) -> None:
        tries = note.tries - (not tried)
        self._ask(steps.PUT_BACK, note.whose, _number(note), repr(now() + wait_s), str(tries))

    def unread(self, model: str, most: int) -> list[tuple[Whose, Memory]]:
        found: list[tuple[Whose, Memory]] = []
        with _understood():
            for place in self._ask(steps.UNREAD, _NOBODY, quote(model), str(most))[:most]:
                whose, id = _whose(place.decode())
                if kept := self._ask(steps.ONE, whose, id):
                    found.append((whose, _memory(kept)))
        return found

    def put_vector(self, whose: Whose, memory: Memory, model: str, vector: bytes) -> None:
        self._ask(steps.PUT_VECTOR, whose, memory.id, memory.text, f"{quote(model)}\n".encode() + vector)

    def tidy(self) -> None:
        self._sweep()
        self.erase()

    def erase(self) -> None:
        """What is deleted leaves Redis' memory at once; in its files it stays until they are written anew. So Redis is
        asked for that, one file after the other, not again for a while, and without anybody being kept waiting. How far
        that has come stands in Redis: any worker goes on with it, and after a kill too.

        `owed`: deletions that were asked for; `done`: those of which no byte is left; `asked`: those that the files
        which are being written do not hold; `file`: which of them is being written, from 1 on; `at`: since when.
        """
        fields = ("owed", "done", "asked", "file", "at")
        with _understood():
            values = self._ask_redis(lambda redis: redis.hmget(_key("erasing", _NOBODY), fields))
            said = {field: (value or b"0").decode() for field, value in zip(fields, values, strict=True)}
            owed, done, asked, file = (int(said[field]) for field in fields[:4])
            if done >= owed:
                return
            state = self._ask_redis(_files)
            if isinstance(state, str):
                self._complain(state)
                return
            if state.is_writing:
                return
            if file:  # it has ended
                file = file + 1 if state.is_well[file - 1 : file] == [True] else 0
                if file > len(state.commands):
                    self._advance(said, done=asked, file=0)
                    return
            if not file:
                passed = now() - float(said["at"])
                if 0 <= passed < self._erase_every_s:
                    self._advance(said, file=0)
                    return
                asked, file = owed, 1
            self._write_anew(said, state, asked, file)

    def _write_anew(self, said: dict[str, str], state: _Files, asked: int, file: int) -> None:
        """Have Redis begin a file anew; whoever comes after a kill between the two steps has it do so again."""
        if not state.commands:
            self._advance(said, done=asked, file=0, at=now())
            return
        refusal = self._ask_redis(lambda redis: _try(redis, state.commands[file - 1]))
        if refusal:
            self._complain(refusal)
            self._advance(said, file=0, at=now())
        else:
            self._advance(said, asked=asked, file=file, at=now())

    def _complain(self, refusal: str) -> None:
        if refusal != self._refusal:
            log.warning(
                "memories: Redis does not write its files anew for us (%s): what was deleted stays there until it does",
                refusal,
            )
        self._refusal = refusal

    def _advance(self, said: dict[str, str], **becomes: float) -> None:
        written = {field: repr(value) for field, value in becomes.items()}
        known = {field: value for field, value in said.items() if field != "owed"}
        self._ask(steps.ADVANCE, _NOBODY, json.dumps(known), json.dumps(written))

    def _sweep(self) -> None:
        """Remove some of what has expired."""
        with _understood():
            for place in self._ask(steps.EXPIRED, _NOBODY, str(_SWEEP)):
                self._ask(steps.SWEEP, *_whose(place.decode()))

    def _statement(self, text: str, source: Source, mood: str | None, at: float) -> tuple[str, ...]:
        """What `keep` takes."""
        row = json.dumps([text, source, topic(text) or "", form(text).hex()], ensure_ascii=False)
        return secrets.token_hex(4), row, mood or "", repr(at), repr(at + self._ttl_s)

    def _ask(self, script: str, whose: Whose, *arguments: str | bytes) -> Any:
        keys = [_key(part, whose) for part in steps.PARTS]
        given = (_who(whose), "1" if whose.owner else "", repr(now()), *arguments)
        return self._ask_redis(lambda redis: redis.eval(script, len(keys), *keys, *given))

    def _ask_redis(self, question: Any) -> Any:
        try:
            return self._link.ask(question)
        except Away as error:
            raise MemoryUnavailable() from error


class _Files:
    """What Redis says of its files: the commands that write each of them anew, whether one is being written, and
    whether the last time of each went well."""

    def __init__(self, info: dict[str, Any], saves: bool) -> None:
        kinds = {
            b"BGREWRITEAOF": (bool(info["aof_enabled"]), info["aof_last_bgrewrite_status"]),
            b"BGSAVE": (saves, info["rdb_last_bgsave_status"]),
        }
        self.commands = [command for command, (is_on, _) in kinds.items() if is_on]
        self.is_well = [status == "ok" for is_on, status in kinds.values() if is_on]
        writing = ("aof_rewrite_in_progress", "aof_rewrite_scheduled", "rdb_bgsave_in_progress")
        self.is_writing = any(info[name] for name in writing)


def _files(redis: Redis) -> _Files | str:
    """Text where that is not for us to know: why."""
    try:
        saves = cast("dict[str, str]", redis.config_get("save")).get("save", "")
        return _Files(redis.info("persistence"), bool(saves))
    except ResponseError as error:
        return f"CONFIG GET, INFO: {error}"


def _try(redis: Redis, command: bytes) -> str:
    """Why Redis refuses `command`; nothing if it does not."""
    try:
        cast("Any", redis).execute_command(command)
    except ResponseError as error:
        return f"{command.decode()}: {error}"
    return ""


@contextmanager
def _understood() -> Iterator[None]:
    """What stands in Redis may be anything: others can write there."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        log.error("memories: Redis holds something that is none of ours")
        raise MemoryUnavailable() from error


def _who(whose: Whose) -> str:
    """Before an id it names a statement. No caller's name is empty, nor has a colon in it when it is quoted."""
    return f"{quote(whose.owner or '', safe='')}:{whose.user}:"


def _whose(place: str) -> tuple[Whose, str]:
    """Whose `_who` it begins with, and what follows."""
    owner, _, rest = place.partition(":")
    user, _, id = rest.rpartition(":")
    return Whose(unquote(owner) or None, user), id


def _key(part: str, whose: Whose) -> str:
    home = f"qaio:{{memory}}:{part}"
    if part in steps.SHARED:
        return home
    return f"{home}:{quote(whose.owner or '', safe='')}" + (f":{whose.user}" if part in steps.USERS else "")


def _likest(vectors: Sequence[bytes | None], vector: bytes) -> list[int]:
    with _understood():
        return likest(vectors, vector)


def _number(note: Note) -> str:
    return f"{note.id:016d}"


def _pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _memory(told: Sequence[bytes]) -> Memory:
    id, row, mood, at, expires, replaced = told
    if not all(map(math.isfinite, (float(at), float(expires)))):
        raise ValueError("not a statement")
    since = float(replaced) if replaced else None
    source = json.loads(row)[1]
    return Memory(id.decode(), _text(row), source, mood.decode() or None, float(at), float(expires), since)


def _text(row: bytes) -> str:
    text = json.loads(row)[0]
    if not isinstance(text, str):
        raise ValueError("not a statement")
    return text
