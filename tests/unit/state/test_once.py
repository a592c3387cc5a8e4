"""What a store of answers to keys of clients' promises, asked of each store there is."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from qwen_allinone.errors import OnceBusy, OnceMismatch, OnceUnavailable
from qwen_allinone.postgres_link import PostgresLink
from qwen_allinone.state import OnceStore, PostgresOnce, RedisOnce, SqliteOnce, redis_once, sqlite_once
from qwen_allinone.state.lease import _place
from tests.support.postgres_server import PostgresServer
from tests.unit.state.stores import HOUR, STORES, lease, links, stores

Make = Callable[..., OnceStore]


@pytest.fixture(params=STORES)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    with stores(request, tmp_path, SqliteOnce, RedisOnce, PostgresOnce) as make:
        yield make


def answered(store: OnceStore, key: str, answer: bytes, owner: str | None = "alice") -> None:
    own = lease()
    assert store.begin(key, owner, "asked", own) is None
    store.keep(key, owner, answer, own)


def test_what_one_worker_keeps_another_gives(make: Make) -> None:
    answered(make(), "k", b"\x00\xff answer\n")
    assert make().begin("k", "alice", "asked", lease()) == b"\x00\xff answer\n"
    with pytest.raises(OnceMismatch):
        make().begin("k", "alice", "other", lease())


def test_a_key_is_held_until_its_answer_is_kept_or_it_is_let_go(make: Make) -> None:
    one, other, own = make(), make(), lease()
    assert one.begin("k", None, "asked", own) is None
    with pytest.raises(OnceBusy):
        other.begin("k", None, "asked", lease())
    with pytest.raises(OnceMismatch):
        other.begin("k", None, "other", lease())
    other.release("k", None, lease())  # of nobody's
    with pytest.raises(OnceBusy):
        other.begin("k", None, "asked", lease())
    one.release("k", None, own)
    assert other.begin("k", None, "other", lease()) is None


def test_of_many_at_once_one_answers(make: Make) -> None:
    stores = [make() for _ in range(8)]

    def begin(store: OnceStore) -> bool:
        try:
            return store.begin("k", "alice", "asked", lease()) is None
        except OnceBusy:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(begin, stores)) == 1


def test_a_process_that_died_holds_nothing(make: Make) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    dead = lease(token=f"{_place()}:{gone.pid}:x")
    assert make().begin("k", "alice", "asked", dead) is None
    own = lease()
    assert make().begin("k", "alice", "other", own) is None
    make().keep("k", "alice", b"late", dead)
    with pytest.raises(OnceBusy):
        make().begin("k", "alice", "other", lease())
    make().keep("k", "alice", b"own", own)
    assert make().begin("k", "alice", "other", lease()) == b"own"


def test_a_lease_and_an_answer_end_by_themselves(make: Make) -> None:
    store = make(ttl_s=0.2)
    assert store.begin("held", "alice", "asked", lease(seconds=0.05)) is None
    answered(store, "kept", b"answer")
    assert store.begin("kept", "alice", "asked", lease()) == b"answer"

    def begun(key: str) -> bool:
        try:
            return store.begin(key, "alice", "other", lease()) is None
        except (OnceBusy, OnceMismatch):
            return False

    ends = time.monotonic() + 10
    left = {"held", "kept"}
    while left and time.monotonic() < ends:
        left -= {key for key in left if begun(key)}
    assert not left


def test_of_one_owners_answers_the_oldest_make_room_and_others_stay(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, clock = make(), [1_000_000_000.0]
    for module in (sqlite_once, redis_once):
        monkeypatch.setattr(module, "now", lambda: clock[0])
    answered(store, "bobs", b"x" * 900_000, owner="bob")
    for number in range(5):
        clock[0] += 1
        answered(store, f"k{number}", bytes([number]) * 300_000)
    found = [store.begin(f"k{number}", "alice", "asked", lease()) for number in range(5)]
    assert [answer is not None for answer in found] == [False, False, True, True, True]
    assert store.begin("bobs", "bob", "asked", lease()) is not None
    answered(store, "huge", b"x" * 1_000_001)
    assert store.begin("huge", "alice", "asked", lease()) is None
    assert store.begin("k4", "alice", "asked", lease()) is not None


def test_what_has_ended_leaves_postgres(shared_postgres: PostgresServer) -> None:
    with links(shared_postgres, "once") as link:
        store = PostgresOnce(link(), ttl_s=HOUR, owner_mb=1)
        for number in range(10):
            answered(store, f"k{number}", b"x")
        shared_postgres.execute("UPDATE qaio_once SET ends = 0 WHERE key <> 'k9'", "once")
        for key in ("new", "k9"):
            store.begin(key, "alice", "asked", lease())
        left = shared_postgres.execute("SELECT key FROM qaio_once ORDER BY key", "once")
    assert left == [("k9",), ("new",)]


def test_without_a_store_nothing_is_promised(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    pytest.importorskip("psycopg")
    for store in (
        PostgresOnce(PostgresLink("postgresql://u@127.0.0.1:1/db"), ttl_s=HOUR, owner_mb=1),
        SqliteOnce(tmp_path / "folder", ttl_s=HOUR, owner_mb=1),
        RedisOnce("redis://127.0.0.1:1", ttl_s=HOUR, owner_mb=1),
    ):
        with pytest.raises(OnceUnavailable):
            store.begin("k", None, "asked", lease())
