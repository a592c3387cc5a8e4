"""What is used is counted once, in memory first, and kept for some days in each store there is."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import date
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from qwen_allinone.errors import UsageUnavailable
from qwen_allinone.state import (
    Counted,
    Counts,
    PostgresUsage,
    RedisUsage,
    SqliteOnce,
    SqliteUsage,
    UsageAccounts,
    UsageLine,
    UsageStore,
    usage,
)
from qwen_allinone.state.lease import Lease
from tests.support.clock import Clock
from tests.support.postgres_server import PostgresServer
from tests.support.redis_server import RedisServer
from tests.unit.state.stores import STORES, links

MakeStore = Callable[[], UsageStore]
JANUARY = 1_767_268_800.0  # 2026-01-01 12:00 UTC
DAY = 86_400.0
FIRST = date(2026, 1, 1)
MOST = 1000


@pytest.fixture(params=STORES)
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeStore]:
    if request.param == "postgres":
        with links(request.getfixturevalue("shared_postgres"), "usage") as link:
            yield lambda: PostgresUsage(link(), days=3)
        return
    made: list[UsageStore] = []

    def make() -> UsageStore:
        if request.param == "redis":
            return RedisUsage(request.getfixturevalue("shared_redis").url, days=3, timeout_s=20.0)
        made.append(SqliteUsage(tmp_path / "folder" / "sessions.db", days=3, busy_s=20.0))
        return made[-1]

    if request.param == "redis":
        request.getfixturevalue("shared_redis").execute("FLUSHALL")
    yield make
    for store in made:
        store.close()


def accounts(store: UsageStore, clock: Clock | None = None) -> UsageAccounts:
    return UsageAccounts(store, days=3, clock=clock or Clock(JANUARY))


def task(name: str = "chat", *counts: int) -> list[Counted]:
    return [("task", name, Counts(*(counts or (1, 0, 10, 4, 2))))]


def read(of: UsageAccounts, *owners: str | None, first: date = FIRST, last: date = FIRST) -> dict[UsageLine, Counts]:
    return of.read(first, last, owners or None, MOST)


def test_counts_of_several_workers_add_up(make_store: MakeStore) -> None:
    one, other = accounts(make_store()), accounts(make_store())
    one.add("alice", [*task(), ("route", "POST /chat", Counts(1, 1))])
    one.add("alice", task())
    other.add("alice", task())
    other.flush()
    assert read(one) == {
        UsageLine("2026-01-01", "alice", "route", "POST /chat"): Counts(1, 1),
        UsageLine("2026-01-01", "alice", "task", "chat"): Counts(3, 0, 30, 12, 6),
    }


def test_owners_are_told_apart_whatever_they_are_called(make_store: MakeStore) -> None:
    of = accounts(make_store())
    names = [None, "-", "=", "alice", "jwt:a:b", "张三", "a' OR 1=1 --"]
    for number, name in enumerate(names, 1):
        of.add(name, task("t", number))
    for number, name in enumerate(names, 1):
        assert [(line.owner, counts.times) for line, counts in read(of, name).items()] == [(name, number)]
    assert {line.owner for line in read(of)} == set(names)
    assert read(of, "nobody") == {}


def test_days_are_utc_and_only_some_are_kept(make_store: MakeStore) -> None:
    clock = Clock(JANUARY)
    of = accounts(make_store(), clock)
    for number in range(5):
        clock.now = JANUARY + number * DAY
        of.add("alice", task("t", number + 1))
        of.flush()
    assert of.days() == (date(2026, 1, 3), date(2026, 1, 5))
    found = read(of, first=FIRST, last=date(2026, 1, 31))
    assert {line.day: counts.times for line, counts in found.items()} == {
        "2026-01-03": 3, "2026-01-04": 4, "2026-01-05": 5,
    }  # fmt: skip
    assert [line.day for line in read(of, first=date(2026, 1, 4), last=date(2026, 1, 4))] == ["2026-01-04"]


def test_old_days_leave_the_file(tmp_path: Path) -> None:
    clock = Clock(JANUARY)
    with closing(SqliteUsage(tmp_path / "s.db", days=3)) as store:
        of = accounts(store, clock)
        for _ in range(5):
            of.add("alice", task())
            of.flush()
            clock.now += DAY
    with closing(sqlite3.connect(tmp_path / "s.db")) as db:
        assert [day for (day,) in db.execute("SELECT day FROM usage")] == ["2026-01-03", "2026-01-04", "2026-01-05"]


def test_more_than_is_wanted_is_not_read_to_the_end(make_store: MakeStore) -> None:
    of = accounts(make_store())
    for number in range(1200):
        of.add(f"key-{number}", task())
    found = of.read(FIRST, FIRST, None, 100)
    assert 100 < len(found) <= 700


def asked_of(redis: RedisServer, command: str) -> int:
    """How often since the last CONFIG RESETSTAT."""
    told: Any = redis.execute("INFO", "commandstats")
    return int(told.get(f"cmdstat_{command}", {"calls": 0})["calls"])


@pytest.mark.parametrize("owners", [("alice",), ()])
def test_days_of_which_nothing_can_be_kept_are_not_asked_for(
    shared_redis: RedisServer, owners: tuple[str, ...]
) -> None:
    shared_redis.execute("FLUSHALL")
    of = accounts(RedisUsage(shared_redis.url, days=3, timeout_s=20.0), Clock(JANUARY + DAY))
    ahead = accounts(RedisUsage(shared_redis.url, days=3, timeout_s=20.0), Clock(JANUARY + 2 * DAY))
    for one in (of, ahead):
        one.add("alice", task())
        one.flush()
    shared_redis.execute("CONFIG", "RESETSTAT")
    found = read(of, *owners, first=date.min, last=date.max)
    assert [line.day for line in found] == ["2026-01-02", "2026-01-03"]
    assert asked_of(shared_redis, "hgetall") <= 5 and asked_of(shared_redis, "smembers") <= 5
    shared_redis.execute("CONFIG", "RESETSTAT")
    assert read(of, *owners, first=date(2999, 1, 1), last=date.max) == {}
    assert asked_of(shared_redis, "hgetall") == asked_of(shared_redis, "smembers") == 0


def test_owners_of_many_days_are_asked_for_as_far_as_they_are_needed(shared_redis: RedisServer) -> None:
    shared_redis.execute("FLUSHALL")
    of = accounts(RedisUsage(shared_redis.url, days=90, timeout_s=20.0))
    for number in range(600):
        of.add(f"key-{number}", task())
    of.flush()
    store = RedisUsage(shared_redis.url, days=90, timeout_s=20.0)
    shared_redis.execute("CONFIG", "RESETSTAT")
    assert len(store.read("2026-01-01", "2026-03-31", None, MOST)) == 600
    assert asked_of(shared_redis, "smembers") == 90
    shared_redis.execute("CONFIG", "RESETSTAT")
    assert 100 < len(store.read("2026-01-01", "2026-03-31", None, 100)) <= 500
    assert asked_of(shared_redis, "smembers") < 90


def test_a_batch_that_redis_took_and_did_not_say_so_is_added_once(shared_redis: RedisServer) -> None:
    shared_redis.execute("FLUSHALL")
    store = RedisUsage(shared_redis.url, days=3, timeout_s=20.0)
    line = UsageLine("2026-01-01", "alice", "task", "chat")
    for batch in ("one", "one", "two"):
        store.add(batch, {line: Counts(1)})
    assert store.read("2026-01-01", "2026-01-01", None, MOST) == {line: Counts(2)}


def test_a_batch_that_postgres_took_and_did_not_say_so_is_added_once_and_forgotten_after_a_day(
    shared_postgres: PostgresServer,
) -> None:
    line = UsageLine("2026-01-01", "alice", "task", "chat")
    with links(shared_postgres, "batches") as link:
        one, other = (PostgresUsage(link(), days=3) for _ in range(2))
        for store, batch in ((one, "one"), (other, "one"), (one, "two")):
            store.add(batch, {line: Counts(1)})
        assert other.read("2026-01-01", "2026-01-01", None, MOST) == {line: Counts(2)}
        shared_postgres.execute("UPDATE qaio_usage_batches SET at = at - 100000", "batches")
        one.add("three", {line: Counts(1)})
        assert shared_postgres.execute("SELECT batch FROM qaio_usage_batches", "batches") == [("three",)]


def test_of_several_machines_that_write_at_once_everything_is_counted(make_store: MakeStore) -> None:
    of = [accounts(make_store()) for _ in range(4)]

    def count(mine: UsageAccounts) -> None:
        for number in range(60):
            mine.add(f"key-{number % 7}", task("t", 1))
            if number % 10 == 9:
                mine.flush()

    crowd = [Thread(target=count, args=(one,)) for one in of]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
    assert sum(counts.times for counts in read(of[0]).values()) == 240


def test_what_cannot_be_written_waits_and_is_not_counted_twice(tmp_path: Path) -> None:
    blocked = tmp_path / "folder"
    blocked.write_text("")
    with closing(SqliteUsage(blocked / "s.db", days=3)) as store:
        of = accounts(store)
        for _ in range(3):
            of.add("alice", task("t", 1))
            with pytest.raises(UsageUnavailable):
                of.flush()
        blocked.unlink()
        assert [counts.times for counts in read(of).values()] == [3]


def test_a_redis_that_stops_is_waited_for(shared_redis: RedisServer) -> None:
    shared_redis.execute("FLUSHALL")
    of = accounts(RedisUsage(shared_redis.url, days=3, timeout_s=20.0))
    of.add("alice", task("t", 1))
    shared_redis.set_read_only(True)
    try:
        with pytest.raises(UsageUnavailable):
            of.flush()
        of.add("alice", task("t", 1))
    finally:
        shared_redis.set_read_only(False)
    again = accounts(RedisUsage(shared_redis.url, days=3, timeout_s=20.0))
    of._store = again._store  # the link that failed waits two seconds before it asks again
    assert [counts.times for counts in read(of).values()] == [2]


def test_memory_is_bounded_and_what_is_lost_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(usage, "MOST_GATHERED", 5)
    with closing(SqliteUsage(tmp_path / "s.db", days=3)) as store:
        of = accounts(store)
        for number in range(8):
            of.add(f"key-{number}", task())
        of.add("key-0", task())
        found = read(of)
    assert len(found) == 5 and found["2026-01-01", "key-0", "task", "chat"].times == 2
    assert "3 counts were lost" in caplog.text


def test_the_thread_writes_and_the_end_writes_what_is_left(tmp_path: Path) -> None:
    of = UsageAccounts(SqliteUsage(tmp_path / "s.db", days=3), days=3, flush_s=0.01, clock=Clock(JANUARY))
    of.start()
    crowd = [Thread(target=lambda: [of.add("alice", task("t", 1)) for _ in range(500)]) for _ in range(4)]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
    of.close()
    with closing(sqlite3.connect(tmp_path / "s.db")) as db:
        assert db.execute("SELECT times FROM usage").fetchall() == [(2000,)]


def test_a_file_that_conversations_are_in_already_gets_the_table(tmp_path: Path) -> None:
    with closing(SqliteOnce(tmp_path / "s.db", ttl_s=60, owner_mb=1)) as once:
        once.release("k", None, Lease.take(1, 1))  # makes the file
    with closing(SqliteUsage(tmp_path / "s.db", days=3)) as store:
        of = accounts(store)
        of.add(None, task())
        assert len(read(of, None)) == 1
