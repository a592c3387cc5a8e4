"""What a store of memories promises, asked of each there is and of its naive twin; and that all do the same."""

from __future__ import annotations

import multiprocessing
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen_allinone.errors import MemoryFull, MemoryNotFound, MemoryUnavailable
from qwen_allinone.postgres_link import PostgresLink
from qwen_allinone.state import (
    MemoryStore,
    PostgresMemories,
    RedisMemories,
    SqliteMemories,
    SqliteStore,
    Whose,
    postgres_memories,
    postgres_tables,
    redis_memories,
    sqlite_memories,
)
from qwen_allinone.state.lease import Lease
from qwen_allinone.state.memories import topic
from qwen_allinone.state.sqlite_erasing import Erasing
from tests.support.clock import Clock
from tests.support.naive_memories import NaiveMemories, likest_ids
from tests.support.postgres_server import PostgresServer
from tests.support.redis_server import RedisServer
from tests.unit.state.stores import links

HOUR = 3600.0
XIAO, SAME_NAME, NOBODYS = Whose("alice", "u-1"), Whose("bob", "u-1"), Whose(None, "u-1")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (sqlite_memories, redis_memories, postgres_memories, postgres_tables):
        monkeypatch.setattr(module, "now", clock)
    return clock


Make = Callable[..., MemoryStore]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "sessions.db"


@pytest.fixture
def sqlite(file: Path) -> Iterator[Callable[..., SqliteMemories]]:
    opened: list[SqliteMemories] = []

    def make(ttl_s: float = HOUR, most: int = 100, erase_every_s: float = 0.0, **more: int) -> SqliteMemories:
        opened.append(SqliteMemories(file, ttl_s=ttl_s, most=most, erase_every_s=erase_every_s, **more))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


@pytest.fixture
def redis(request: pytest.FixtureRequest) -> Make:
    server: RedisServer = request.getfixturevalue("shared_redis")
    server.execute("FLUSHALL")

    def make(ttl_s: float = HOUR, most: int = 100, **more: int) -> RedisMemories:
        return RedisMemories(server.url, ttl_s=ttl_s, most=most, timeout_s=20.0, **more)

    return make


@contextmanager
def in_postgres(request: pytest.FixtureRequest) -> Iterator[Make]:
    server: PostgresServer = request.getfixturevalue("shared_postgres")
    with links(server, "memories") as link:

        def make(ttl_s: float = HOUR, most: int = 100, **more: int) -> PostgresMemories:
            return PostgresMemories(link(), ttl_s=ttl_s, most=most, **more)

        yield make


@pytest.fixture
def pgvector(request: pytest.FixtureRequest) -> Iterator[Make]:
    with in_postgres(request) as make:
        yield make


@pytest.fixture
def postgres(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Where pgvector is not installed."""
    monkeypatch.setattr(PostgresLink, "tried", lambda *_: False)
    with in_postgres(request) as make:
        yield make


STORES = ["sqlite", "redis", "pgvector", "postgres"]


@pytest.fixture(params=STORES)
def make_real(request: pytest.FixtureRequest, clock: Clock) -> Make:
    return request.getfixturevalue(request.param)


@pytest.fixture(params=[*STORES, "naive"])
def make(request: pytest.FixtureRequest, clock: Clock) -> Make:
    if request.param == "naive":
        return lambda ttl_s=HOUR, most=100, **more: NaiveMemories(clock, ttl_s=ttl_s, most=most, **more)
    return request.getfixturevalue(request.param)


def texts(store: MemoryStore, whose: Whose = XIAO, *, current: bool = True) -> list[str]:
    return [memory.text for memory in store.all(whose) if memory.replaced is None or not current]


def vector(*values: float) -> bytes:
    """Of one length, or nearly: what is compared is the direction."""
    return np.array(values, np.float16).tobytes()


def told(store: MemoryStore, *found: str, whose: Whose = XIAO) -> None:
    """A turn in which so much was found."""
    store.note(whose, "一句话", "平静")
    note = store.take(60.0)
    assert note and note.whose == whose
    store.settle(note, found)


def test_a_statement_is_kept_for_its_user_alone(make: Make) -> None:
    store = make()
    memory = store.add(XIAO, "用户养了一只猫")
    assert store.all(XIAO) == [memory] and (memory.source, memory.replaced) == ("hand", None)
    for other in (SAME_NAME, NOBODYS, Whose("alice", "u-11"), Whose("alice", "u-"), Whose("", "u-1")):
        assert store.all(other) == []
        with pytest.raises(MemoryNotFound):
            store.delete(other, memory.id)
        assert store.forget(other) == 0
    assert texts(store) == ["用户养了一只猫"]
    store.delete(XIAO, memory.id)
    assert store.all(XIAO) == []


def test_what_is_said_again_is_kept_once_and_is_the_newest(make: Make, clock: Clock) -> None:
    store = make()
    first = store.add(XIAO, "用户养了一只猫")
    clock.now += 10
    told(store, "用户喜欢爬山")
    clock.now += 10
    told(store, "用户养了一只猫。", "用户养了一只猫！")
    assert texts(store) == ["用户养了一只猫", "用户喜欢爬山"]
    assert store.all(XIAO)[0].id == first.id and store.all(XIAO)[0].at == first.at + 20


def test_of_what_one_has_once_the_newest_holds_and_the_old_is_marked(make: Make, clock: Clock) -> None:
    store = make()
    for found in ("用户住在苏州", "用户喜欢住在苏州的日子", "用户刚搬到杭州", "用户的女儿住在北京"):
        clock.now += 10
        told(store, found)
    assert texts(store) == ["用户的女儿住在北京", "用户刚搬到杭州", "用户喜欢住在苏州的日子"]
    (old,) = [memory for memory in store.all(XIAO) if memory.replaced]
    assert (old.text, old.replaced) == ("用户住在苏州", clock.now - 10)
    clock.now += 10
    told(store, "用户住在苏州")  # back again
    assert texts(store)[0] == "用户住在苏州" and "用户刚搬到杭州" not in texts(store)


def test_a_note_that_comes_late_does_not_replace_what_was_said_after_it(make: Make, clock: Clock) -> None:
    store = make()
    store.note(XIAO, "我住在苏州", None)
    late = store.take(60.0)
    clock.now += 10
    store.add(XIAO, "用户住在杭州")
    assert late
    store.settle(late, ["用户住在苏州"])
    assert texts(store) == ["用户住在杭州"] and len(store.all(XIAO)) == 2


@pytest.mark.parametrize(
    ("text", "about"),
    [
        ("用户住在杭州", "home"),
        ("用户现在住在西安", "home"),
        ("用户家住郑州", "home"),
        ("用户刚搬到成都", "home"),
        ("The user lives in Leeds", "home"),
        ("用户住院了", None),
        ("用户的妹妹住在苏州", None),
        ("用户叫老秦", "name"),
        ("用户的名字叫方圆", "name"),
        ("用户的猫叫煤球", None),
        ("用户养了一只叫煤球的猫", None),
        ("用户今年五十六岁", "age"),
        ("用户30岁", "age"),
        ("用户今年想考研", None),
        ("用户今年二月结婚", None),
        ("用户的生日是八月十五日", "birthday"),
        ("用户喜欢过生日", None),
        ("用户喜欢爬山", None),
    ],
)
def test_what_one_has_once_is_told_by_how_a_statement_begins(text: str, about: str | None) -> None:
    assert topic(text) == about


def test_a_user_has_so_many_and_the_oldest_make_room_replaced_ones_first(make: Make, clock: Clock) -> None:
    store = make(most=3)
    for text in ("用户喜欢爬山", "用户住在苏州", "用户住在杭州", "用户不吃香菜", "用户喜欢下棋"):
        clock.now += 1
        store.add(XIAO, text)
    assert texts(store, current=False) == ["用户喜欢下棋", "用户不吃香菜", "用户住在杭州"]
    store.add(SAME_NAME, "用户喜欢爬山")
    assert len(store.all(XIAO)) == 3


def test_a_memory_lives_so_long_after_it_was_last_said(make: Make, clock: Clock) -> None:
    store = make(ttl_s=100.0)
    store.add(XIAO, "用户喜欢爬山")
    store.add(XIAO, "用户喜欢下棋")
    clock.now += 90
    store.add(XIAO, "用户喜欢爬山")
    clock.now += 20
    assert texts(store) == ["用户喜欢爬山"]
    store.tidy()
    assert texts(store) == ["用户喜欢爬山"]


def test_an_owner_whose_users_take_its_share_keeps_nothing_more_and_others_do(make: Make) -> None:
    store = make(owner_mb=1, most=10_000)
    big = "长" * 200_000
    for number in range(2):
        store.add(Whose("alice", f"u-{number}"), f"{number}{big}")
    store.put_vector(Whose("alice", "u-0"), store.all(Whose("alice", "u-0"))[0], "m", bytes(100))
    with pytest.raises(MemoryFull, match="1 MB"):
        store.check_room(XIAO)
    with pytest.raises(MemoryFull):
        store.add(XIAO, "用户喜欢下棋")
    for other in (SAME_NAME, NOBODYS):
        store.add(other, "用户喜欢下棋")
    store.forget(Whose("alice", "u-0"))
    store.add(XIAO, "用户喜欢下棋")
    store.note(XIAO, big, None)  # under way; it counts all the same
    with pytest.raises(MemoryFull):
        store.check_room(XIAO)


def test_a_note_is_taken_by_one_and_again_when_that_one_is_gone(make: Make, clock: Clock) -> None:
    store = make()
    store.note(XIAO, "我喜欢爬山", "正面")
    clock.now += 1
    store.note(SAME_NAME, "我喜欢下棋", None)
    first, second = store.take(60.0), store.take(60.0)
    assert first and second and store.take(60.0) is None
    assert (first.text, first.mood, first.whose, second.text) == ("我喜欢爬山", "正面", XIAO, "我喜欢下棋")
    clock.now += 61
    again = store.take(60.0)
    assert again and (again.id, again.tries) == (first.id, 2)
    store.settle(again, ["用户喜欢爬山"])
    store.settle(first, ["用户喜欢爬山", "用户喜欢登高"])  # who was slow comes too late
    assert texts(store) == ["用户喜欢爬山"]


def test_a_note_that_is_put_back_is_taken_later_and_counts_only_what_was_tried(make: Make, clock: Clock) -> None:
    store = make()
    store.note(XIAO, "我喜欢爬山", None)
    tries = []
    for tried in (True, False, False, True):
        note = store.take(60.0)
        assert note
        tries.append(note.tries)
        store.put_back(note, 5.0, tried=tried)
        assert store.take(60.0) is None
        clock.now += 5
    assert tries == [1, 2, 2, 2]


def test_a_user_who_is_forgotten_has_no_notes_left_nor_what_is_found_in_one_under_way(make: Make) -> None:
    store = make()
    store.note(XIAO, "我喜欢爬山", None)
    under_way = store.take(60.0)
    store.note(XIAO, "我喜欢下棋", None)
    store.forget(XIAO)
    assert under_way and store.take(60.0) is None
    store.settle(under_way, ["用户喜欢爬山"])
    assert store.all(XIAO) == []


def test_a_vector_is_of_one_model_and_another_makes_it_anew(make: Make) -> None:
    store = make()
    memory = store.add(XIAO, "用户喜欢爬山")
    assert store.unread("one", 10) == [(XIAO, memory)]
    store.put_vector(XIAO, memory, "one", vector(1))
    store.put_vector(XIAO, replace(memory, text="another text"), "two", vector(1))
    store.put_vector(SAME_NAME, memory, "two", vector(1))
    assert store.unread("one", 10) == [] and likest_ids(store, XIAO, "one", vector(1)) == [memory.id]
    assert likest_ids(store, XIAO, "two", vector(1)) == [] == likest_ids(store, SAME_NAME, "one", vector(1))
    for model in ("two", "o", "on", "onee", ""):
        assert store.unread(model, 10) == [(XIAO, memory)]
    store.put_vector(XIAO, memory, "two", vector(1, 2))
    assert store.unread("two", 10) == [] and likest_ids(store, XIAO, "two", vector(1, 1)) == [memory.id]


def test_of_many_without_a_vector_some_are_named(make: Make) -> None:
    store = make()
    for number in range(30):
        store.add(Whose("alice", f"u-{number % 7}"), f"用户喜欢{number}")
    named = {(whose, memory.id) for whose, memory in store.unread("m", 16)}
    assert len(named) == 16 and all(id in [m.id for m in store.all(whose)] for whose, id in named)
    left = 30
    while found := store.unread("m", 16):
        for whose, memory in found:
            store.put_vector(whose, memory, "m", vector(1))
        left -= len(found)
    assert left == 0


def test_the_likest_come_first_of_what_holds_and_what_all_have_in_common_does_not_count(
    make: Make, clock: Clock
) -> None:
    store = make(most=6)
    kept = {}
    for number, text in enumerate(["用户住在苏州", "用户住在杭州", "用户有猫", "用户有狗", "用户爬山", "用户看海"]):
        clock.now += 1
        kept[text] = store.add(XIAO, text)
        store.put_vector(XIAO, kept[text], "m", vector(9, 9, *np.eye(6)[number]))
    first = [kept[text].id for text in ("用户有猫", "用户看海", "用户爬山", "用户有狗", "用户住在杭州")]
    assert likest_ids(store, XIAO, "m", vector(9, 9, 0, 0, 1, 0, 0, 0)) == first, "five left: of equals the newest"
    store.put_vector(XIAO, store.add(XIAO, "用户下棋"), "m", vector(9, 9, 0, 0, 0, 0, 0, 0))
    asked = vector(9, 8, 0, 0, 0, 0, 0, 2)
    assert likest_ids(store, XIAO, "m", asked)[0] == kept["用户看海"].id
    clock.now += HOUR
    assert likest_ids(store, XIAO, "m", asked) == []


# None as like to (3, 1, 2) as another, so that no rounding decides.
DIRECTIONS = [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (5, 1, 2)]


def test_all_do_the_same_whatever_is_done(make_real: Make, clock: Clock) -> None:
    """Thousands of steps at random, and after each the same users have the same."""
    rng = random.Random(3)
    one, twin = make_real(ttl_s=300.0, most=4, owner_mb=1), NaiveMemories(clock, ttl_s=300.0, most=4, owner_mb=1)
    users = (XIAO, SAME_NAME, NOBODYS, Whose("alice", "u-2"))
    said = ["用户住在苏州", "用户住在杭州", "用户叫阿青", "用户叫老秦", "用户喜欢爬山", "用户喜欢 爬山。", "用户有猫"]
    held: list[tuple[object, object]] = []

    def seen(store: MemoryStore) -> list[object]:
        rows: list[object] = []
        for whose in users:
            kept = store.all(whose)
            likest = likest_ids(store, whose, "m", vector(3, 1, 2))
            rows += [(m.text, m.source, m.mood, m.at, m.expires, m.replaced) for m in kept]
            rows += [[m.id for m in kept].index(id) for id in likest]
        unread = [
            (whose.owner, whose.user, memory.text)
            for whose, memory in store.unread("m", 100)
            if memory.expires > clock.now
        ]
        return [*rows, *sorted(unread, key=repr)]

    for _ in range(1500):
        whose, clock.now = rng.choice(users), clock.now + rng.choice((0.0, 1.0, 20.0))
        step, text = rng.randrange(10), rng.choice(said)
        if step < 2:
            for store in (one, twin):
                store.add(whose, text)
        elif step == 2:
            for store in (one, twin):
                store.note(whose, text, "平静")
        elif step == 3:
            taken = one.take(30.0), twin.take(30.0)
            assert (taken[0] is None) == (taken[1] is None)
            if taken[0] and taken[1]:
                assert taken[0].whose == taken[1].whose and taken[0].tries == taken[1].tries
                held.append(taken)
        elif step in (4, 5) and held:
            mine, other = held.pop(rng.randrange(len(held)))
            found = rng.sample(said, rng.randrange(3))
            for store, note in ((one, mine), (twin, other)):
                store.settle(note, found) if step == 4 else store.put_back(note, 5.0, tried=True)  # type: ignore[arg-type]
        elif step == 6 and (left := one.all(whose)):
            place = rng.randrange(len(left))
            one.delete(whose, left[place].id)
            twin.delete(whose, twin.all(whose)[place].id)
        elif step == 8 and (left := one.all(whose)):
            place, made = rng.randrange(len(left)), vector(*rng.choice(DIRECTIONS))
            model = rng.choice("mn")
            one.put_vector(whose, left[place], model, made)
            twin.put_vector(whose, twin.all(whose)[place], model, made)
        elif step == 7 and rng.random() < 0.1:
            assert len(one.all(whose)) == len(twin.all(whose))
            one.forget(whose), twin.forget(whose)
        else:
            one.tidy(), twin.tidy()
        assert seen(one) == seen(twin)


MARKED = "Quetzalcoatlus{}"


def test_of_what_is_forgotten_no_byte_is_in_the_files(sqlite: Callable[..., SqliteMemories], file: Path) -> None:
    """One by one and all at once, from pages that were split, with vectors, notes, and a second worker's connection."""
    rng, store, other = random.Random(5), sqlite(most=2000), sqlite(most=2000)
    sessions = SqliteStore(file, ttl_s=HOUR)
    sessions.create("a" * 32, None, Lease.take(60.0, 60.0))  # the file is everybody's
    mine: dict[str, str] = {}
    for number in range(300):
        text = f"用户{MARKED.format(number)}.{'填' * rng.randrange(120)}"
        memory = (store if number % 2 else other).add(XIAO, text)
        store.put_vector(XIAO, memory, "m", b"Vector%05d" % number * 80)
        other.add(SAME_NAME, f"用户喜欢{number}{'别' * rng.randrange(200)}")
        mine[memory.id] = MARKED.format(number) + "."
    store.note(XIAO, MARKED.format("note"), None)
    gone = rng.sample(sorted(mine), 150)
    for place, id in enumerate(gone):
        (store if place % 3 else other).delete(XIAO, id)
        if place in (0, 1, 149):
            assert_gone(file, [mine[id] for id in gone[: place + 1]])
    assert MARKED.format("note") in everything(file) and len(store.all(XIAO)) == 150
    store.forget(XIAO)
    assert_gone(file, ["Quetzalcoatlus", "Vector0"])
    assert len(store.all(SAME_NAME)) == 300
    sessions.close()


def test_nor_is_any_between_rows_that_were_moved(
    sqlite: Callable[..., SqliteMemories], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where SQLite moves rows to another page, `secure_delete` leaves some of what they held in the gap, as here."""
    rng, store = random.Random(0), sqlite(most=2000)
    monkeypatch.setattr("secrets.token_hex", lambda count: rng.randbytes(count).hex())
    for number in range(120):
        memory = store.add(XIAO, f"用户{MARKED.format(number)}.{'填' * rng.randrange(120)}")
        store.put_vector(XIAO, memory, "m", b"Vector%05d" % number * 80)
        store.add(SAME_NAME, f"用户喜欢{number}{'别' * rng.randrange(200)}")
    store.forget(XIAO)
    assert_gone(file, ["Quetz", "Vector0"])
    assert len(store.all(SAME_NAME)) == 120


def test_what_a_reader_keeps_from_being_erased_is_erased_later(
    sqlite: Callable[..., SqliteMemories], file: Path
) -> None:
    store = sqlite(busy_s=0)
    memory = store.add(XIAO, MARKED)
    reader = sqlite3.connect(file, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM memories").fetchone()
    store.delete(XIAO, memory.id)
    assert MARKED in everything(file), "or the test shows nothing"
    reader.execute("ROLLBACK")
    store.tidy()
    assert_gone(file, [MARKED])
    reader.close()


@pytest.fixture
def written_anew(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How much was owed each time that a file was written anew."""
    seen: list[int] = []
    write = Erasing._write_anew

    def record(debt: Erasing, db: sqlite3.Connection, owed: int, now: Callable[[], float]) -> None:
        seen.append(owed)
        write(debt, db, owed, now)

    monkeypatch.setattr(Erasing, "_write_anew", record)
    return seen


def test_who_forgets_again_and_again_has_the_file_written_anew_once_in_a_while(
    sqlite: Callable[..., SqliteMemories], file: Path, clock: Clock, written_anew: list[int]
) -> None:
    workers = [sqlite(erase_every_s=10.0) for _ in range(2)]
    ids = [workers[0].add(XIAO, f"用户{MARKED.format(number)}.").id for number in range(40)]
    workers[0].delete(XIAO, ids[0])
    assert_gone(file, [MARKED.format("0.")])
    for number in range(1, 40):
        workers[number % 2].delete(XIAO, ids[number])
    clock.now += 9.9
    for worker in workers:
        worker.tidy()
    assert written_anew == [1] and texts(workers[0]) == []
    assert "Quetzalcoatlus" in everything(file), "or the test shows nothing"
    clock.now += 0.2
    for worker in workers:
        worker.erase()
    assert_gone(file, ["Quetzalcoatlus"])
    clock.now += 100
    for worker in workers:
        worker.erase()
    assert written_anew == [1, 40]


def test_a_file_that_takes_long_is_written_anew_more_seldom(
    sqlite: Callable[..., SqliteMemories], file: Path, clock: Clock, written_anew: list[int]
) -> None:
    store = sqlite(erase_every_s=10.0)
    for text in ("用户喜欢爬山", "用户喜欢下棋"):
        store.delete(XIAO, store.add(XIAO, text).id)
    with sqlite3.connect(file) as db:
        db.execute("UPDATE memory_erasing SET took = 3")
    for passes, times in ((29.0, 1), (1.5, 2)):
        clock.now += passes
        store.erase()
        assert len(written_anew) == times
    store.delete(XIAO, store.add(XIAO, "用户喜欢游泳").id)
    clock.now -= 3600  # set back
    store.erase()
    assert len(written_anew) == 3


def test_what_is_still_to_be_erased_is_known_to_whoever_opens_the_file_next(
    sqlite: Callable[..., SqliteMemories], file: Path, clock: Clock
) -> None:
    killed = sqlite(erase_every_s=10.0)
    for number in range(2):
        killed.delete(XIAO, killed.add(XIAO, MARKED.format(number)).id)
    killed.note(XIAO, MARKED.format("note"), None)
    killed.forget(XIAO)
    assert "Quetzalcoatlus" in everything(file), "or the test shows nothing"
    clock.now += 11
    sqlite(erase_every_s=10.0).erase()
    assert_gone(file, ["Quetzalcoatlus"])


def test_who_forgets_what_is_not_there_has_nothing_written_anew(make: Make, written_anew: list[int]) -> None:
    store = make()
    store.add(SAME_NAME, "用户喜欢下棋")
    assert store.forget(XIAO) == 0
    with pytest.raises(MemoryNotFound):
        store.delete(XIAO, "0" * 16)
    assert written_anew == []


def test_who_forgets_is_answered_though_another_writes(
    sqlite: Callable[..., SqliteMemories], file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another takes the file between the deletion and the erasure."""
    store = sqlite(busy_s=0)
    memory = store.add(XIAO, MARKED)
    other = sqlite3.connect(file, isolation_level=None)
    erase = store.erase

    def late() -> None:
        other.execute("BEGIN IMMEDIATE")
        erase()

    with monkeypatch.context() as patch:
        patch.setattr(store, "erase", late)
        store.delete(XIAO, memory.id)
    assert texts(store) == [] and MARKED in everything(file)
    other.execute("ROLLBACK")
    other.close()
    store.erase()
    assert_gone(file, [MARKED])


def test_a_file_of_before_learns_what_is_to_be_erased(sqlite: Callable[..., SqliteMemories], file: Path) -> None:
    before = sqlite()
    memory = before.add(XIAO, MARKED)
    before.close()
    with sqlite3.connect(file) as db:
        db.execute("DROP TABLE memory_erasing")
    after = sqlite()
    after.delete(XIAO, memory.id)
    assert_gone(file, [MARKED])


def everything(file: Path) -> str:
    return "".join(part.read_bytes().decode("latin-1") for part in sorted(file.parent.iterdir()))


def assert_gone(file: Path, words: list[str]) -> None:
    left = everything(file)
    assert [word for word in words if word in left] == []


def test_a_file_that_cannot_be_used_is_said_so_and_nothing_is_lost(
    sqlite: Callable[..., SqliteMemories], file: Path
) -> None:
    store = sqlite(max_mb=1)
    with pytest.raises(MemoryUnavailable):
        for number in range(100):
            store.add(XIAO, f"{number}{'长' * 20_000}")
    kept = len(store.all(XIAO))
    assert kept > 3
    store.delete(XIAO, store.all(XIAO)[0].id)
    store.add(XIAO, "用户喜欢下棋")
    assert len(store.all(XIAO)) == kept
    store.close()
    file.write_bytes(b"not a database" * 1000)
    with pytest.raises(MemoryUnavailable):
        store.all(XIAO)


def _work(file: Path, settled: Any) -> None:
    """A worker that works notes off until it is killed."""
    store = SqliteMemories(file, ttl_s=HOUR, most=5000)
    while True:
        if note := store.take(0.01):
            store.settle(note, [f"用户说{note.text}"])
            settled.release()


def test_kill_9_loses_no_note_and_doubles_none(sqlite: Callable[..., SqliteMemories], file: Path) -> None:
    """Two workers are killed in the middle again and again: each of 200 notes ends as one memory."""
    store, context = sqlite(most=5000), multiprocessing.get_context("fork")
    for number in range(200):
        store.note(XIAO, str(number), None)
    for _ in range(6):
        settled = context.Semaphore(0)
        workers = [context.Process(target=_work, args=(file, settled), daemon=True) for _ in range(2)]
        for worker in workers:
            worker.start()
        for _ in range(20):
            assert settled.acquire(timeout=20)
        for worker in workers:
            worker.kill()
            worker.join()
    assert 100 < len(store.all(XIAO)) < 200, "or nobody was killed in the middle"
    while _notes_left(file):
        if note := store.take(60.0):  # once those who were killed hold it no more
            store.settle(note, [f"用户说{note.text}"])
    assert sorted(int(text.removeprefix("用户说")) for text in texts(store)) == list(range(200))


def _notes_left(file: Path) -> int:
    db = sqlite3.connect(file)
    try:
        return int(db.execute("SELECT count(*) FROM memory_notes").fetchone()[0])
    finally:
        db.close()
