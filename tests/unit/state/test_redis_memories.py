"""What goes for memories in Redis alone: what it holds afterwards, in memory and in files, and what it may hold."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from qwen_allinone.errors import MemoryFull, MemoryNotFound, MemoryUnavailable
from qwen_allinone.state import Memory, RedisMemories, Whose
from qwen_allinone.state.memories import AROUND_BYTES
from tests.support.naive_memories import likest_ids
from tests.support.redis_server import BINARY, WHY_NOT, RedisServer

pytestmark = pytest.mark.skipif(BINARY is None, reason=WHY_NOT)

XIAO, OTHER = Whose("ali:ce\n", "u:1"), Whose(None, "u:1")
MARKED = "Quetzalcoatlus{}"
HOME = "qaio:{memory}:"


def store_in(redis: RedisServer, **more: float) -> RedisMemories:
    return RedisMemories(redis.url, ttl_s=3600.0, most=100, timeout_s=20.0, erase_every_s=0.0, **more)  # type: ignore[arg-type]


def left(redis: RedisServer) -> set[str]:
    """The keys that are there, but for what is counted on and on."""
    keys = {key.decode().removeprefix(HOME) for key in redis.execute("KEYS", "*")}  # type: ignore[attr-defined]
    return keys - {"erasing", "note_number"}


def test_of_a_user_who_is_forgotten_or_expires_or_is_deleted_one_by_one_no_key_is_left(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_in(redis)

    def fill() -> list[Memory]:
        kept = [store.add(XIAO, text) for text in ("用户住在苏州", "用户住在杭州", "用户\x00“有猫\\")]
        store.put_vector(XIAO, kept[0], "m/o", bytes(8))
        store.put_vector(XIAO, kept[1], "m/o", bytes(8))
        return store.all(XIAO)

    sizes = [len(text.encode()) + AROUND_BYTES for text in ("用户住在苏州", "用户住在杭州", "用户\x00“有猫\\")]
    assert [memory.text for memory in fill()] == ["用户\x00“有猫\\", "用户住在杭州", "用户住在苏州"]
    assert int(redis.execute("GET", f"{HOME}share:ali%3Ace%0A")) == sum(sizes) + 16  # type: ignore[call-overload]
    for memory in fill():
        store.delete(XIAO, memory.id)
    assert left(redis) == {"number:ali%3Ace%0A:u:1"}
    fill()
    store.note(XIAO, "我有一只猫", "平静")
    assert store.forget(XIAO) == 3
    assert left(redis) == set()
    fill()
    later = time.time() + 3601
    monkeypatch.setattr("qwen_allinone.state.redis_memories.now", lambda: later)
    assert store.all(XIAO) == []
    store.tidy()
    assert left(redis) == {"number:ali%3Ace%0A:u:1"}


def files_of(folder: Path) -> bytes:
    parts = [file for file in folder.rglob("*") if file.is_file() and file.name != "redis.log"]
    found = b""
    for part in parts:
        with suppress(FileNotFoundError):  # Redis writes a file anew under another name and then renames it
            found += part.read_bytes()
    return found


@pytest.mark.parametrize("writes", ["appends", "saves", "both"])
def test_of_what_is_forgotten_no_byte_stays_in_the_files(redis: RedisServer, tmp_path: Path, writes: str) -> None:
    redis.execute("CONFIG", "SET", "rdbcompression", "no")
    if writes != "saves":
        redis.execute("CONFIG", "SET", "appendonly", "yes")
    if writes != "appends":
        redis.execute("CONFIG", "SET", "save", "3600 1000000")
    store, other = store_in(redis), store_in(redis)
    kept = [store.add(XIAO, MARKED.format(number)) for number in range(5)]
    store.add(OTHER, "Pteranodon")
    store.note(XIAO, MARKED.format("note"), None)
    if writes != "appends":
        until(lambda: "in progress" not in str(redis.execute("INFO", "persistence")))
        redis.execute("SAVE")
    until(lambda: all(MARKED.format(end).encode() in files_of(tmp_path) for end in (0, 4, "note")))
    store.delete(XIAO, kept[0].id)
    store.forget(XIAO)

    def gone() -> bool:
        store.erase()
        other.erase()
        return b"Quetzalcoatlus" not in files_of(tmp_path)

    until(gone)
    assert b"Pteranodon" in files_of(tmp_path) and [memory.text for memory in store.all(OTHER)] == ["Pteranodon"]

    def done() -> bool:
        other.erase()
        owed, finished = redis.execute("HMGET", f"{HOME}erasing", "owed", "done")  # type: ignore[misc]
        return bool(owed == finished == b"2")

    until(done)


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "what the test waits for did not happen"
        time.sleep(0.1)


def test_a_redis_that_may_not_be_asked_for_its_files_is_told_of_once_and_forgets_all_the_same(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    redis.execute("ACL", "SETUSER", "default", "-config")
    store = store_in(redis)
    for text in ("用户有猫", "用户有狗"):
        store.delete(XIAO, store.add(XIAO, text).id)
    assert store.all(XIAO) == []
    told = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 1 and "until it does" in told[0].getMessage()


def test_a_redis_that_is_gone_is_a_store_that_cannot_be_used_until_it_is_back(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qwen_allinone.away._RETRY_S", 0.0)
    store = store_in(redis)
    memory = store.add(XIAO, "用户有猫")
    redis.kill()
    for step in steps_on(store, memory):
        with pytest.raises(MemoryUnavailable):
            step()
    redis.start()
    assert store.all(XIAO) == [] and store.add(XIAO, "用户有猫").text == "用户有猫"


def steps_on(store: RedisMemories, memory: Memory) -> list[Callable[[], object]]:
    """All that reads or writes."""
    return [
        lambda: store.check_room(XIAO),
        lambda: store.all(XIAO),
        lambda: likest_ids(store, XIAO, "m", bytes(8)),
        lambda: store.unread("m", 5),
        lambda: store.add(XIAO, "用户住在杭州"),
        lambda: store.note(XIAO, "我有猫", None),
        lambda: store.take(1.0),
        lambda: store.put_vector(XIAO, memory, "m", bytes(8)),
        store.tidy,
        lambda: store.delete(XIAO, memory.id),
        lambda: store.forget(XIAO),
    ]


STRANGE = {
    "text": ("SET", "\xff nonsense"),
    "a list": ("RPUSH", "[" * 5000, "{}"),
    "a hash of nothing ours": ("HSET", "text", "1e300", b"\xff", b"\xfe"),
    "a set by scores": ("ZADD", "0", "x", "1", b"\xff\n"),
}


@pytest.mark.parametrize("value", STRANGE.values(), ids=STRANGE)
def test_whatever_stands_in_redis_is_no_more_than_a_store_that_cannot_be_used(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, value: tuple[str | bytes, ...]
) -> None:
    monkeypatch.setattr("qwen_allinone.away._RETRY_S", 0.0)
    store = store_in(redis)
    for place in range(len(keys_of(redis, store))):
        key = sorted(keys_of(redis, store))[place]
        (memory,) = [memory for memory in store.all(XIAO) if memory.text == "用户住在苏州"]
        redis.execute("DEL", key)
        redis.execute(value[0], key, *value[1:])
        for step in steps_on(store, memory):
            with suppress(MemoryUnavailable, MemoryNotFound, MemoryFull):
                step()


def keys_of(redis: RedisServer, store: RedisMemories) -> list[str]:
    """What a Redis holds that has of everything, made anew."""
    redis.execute("FLUSHALL")
    for text in ("用户住在杭州", "用户住在苏州"):
        store.put_vector(XIAO, store.add(XIAO, text), "m", bytes(8))
    store.note(XIAO, "我有一只猫", None)
    store.take(60.0)
    return [key.decode() for key in redis.execute("KEYS", "*")]  # type: ignore[attr-defined]
