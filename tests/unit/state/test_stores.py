"""What a store of sessions promises, asked of each store there is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from qwen_allinone.errors import OwnerFull, SessionBusy, SessionNotFound, StoreUnavailable
from qwen_allinone.state import PostgresStore, RedisStore, Sessions, SqliteStore, Store, Turn
from qwen_allinone.state import redis_conversations as redis_module
from qwen_allinone.state import sqlite_conversations as sqlite_module
from qwen_allinone.state.lease import Lease, _place, is_dead
from tests.support.redis_server import RedisServer
from tests.unit.state.stores import HOUR, STORES, lease, stores

ID, OTHER_ID = "a" * 32, "b" * 32
TURN = Turn("我的猫走丢了\x00\u2028“", "负面", "平静", "抱抱你\n慢慢来😢", ids=(5, 0, 151_645), first=0, at=1.5)

Make = Callable[..., Store]


@pytest.fixture(params=STORES)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    with stores(request, tmp_path, SqliteStore, RedisStore, PostgresStore) as make:
        yield make


def kept(store: Store, turns: int, id: str = ID, owner: str | None = "alice") -> None:
    """Make a session of so many turns."""
    own = lease()
    store.create(id, owner, own)
    for number in range(turns):
        store.append(id, replace(TURN, text=str(number)), number, own)
    store.release(id, own)


def test_what_one_worker_keeps_another_reads(make: Make) -> None:
    one, other = make(), make()
    own = lease()
    one.create(ID, "alice", own)
    one.append(ID, TURN, 0, own)
    session = other.begin(ID, "alice", lease())
    assert session.turns == (TURN,) and session.id == ID
    assert session == replace(other.read(ID, "alice"), expires=session.expires, created=session.created)
    assert HOUR - 60 < session.expires - session.created < HOUR + 60


BIG = replace(TURN, text="x" * 300_000)


def filled(store: Store, id: str, owner: str | None, times: int = 4) -> None:
    own = lease()
    store.create(id, owner, own)
    for number in range(times):
        store.append(id, BIG, number, own)
    store.release(id, own)


def is_full(store: Store, owner: str | None) -> bool:
    own = lease()
    try:
        store.create(OTHER_ID, owner, own)
    except OwnerFull:
        return True
    store.release(OTHER_ID, own)
    return False


def test_an_owner_whose_turns_take_its_share_begins_nothing_more_and_others_do(make: Make) -> None:
    store = make()
    filled(store, ID, "alice", times=3)
    assert not is_full(store, "alice")
    filled(store, "c" * 32, "alice", times=1)
    assert is_full(make(), "alice") and not is_full(store, "bob") and not is_full(store, None)
    with pytest.raises(OwnerFull, match="1 MB"):
        store.begin(ID, "alice", lease())
    assert len(store.read(ID, "alice").turns) == 3
    store.delete("c" * 32, "alice")
    assert not is_full(store, "alice")
    assert len(store.begin(ID, "alice", lease()).turns) == 3


def test_without_keys_nobody_has_a_share(make: Make) -> None:
    store = make()
    filled(store, ID, None)
    assert not is_full(store, None)


def test_what_has_expired_is_counted_out(make: Make) -> None:
    store = make(ttl_s=0.4)
    filled(store, ID, "alice")
    time.sleep(0.5)
    assert not is_full(store, "alice")


def test_a_turn_under_way_when_the_share_is_full_is_kept(make: Make) -> None:
    store, own = make(), lease()
    store.create(OTHER_ID, "alice", own)
    filled(store, ID, "alice")
    store.append(OTHER_ID, TURN, 0, own)
    assert store.read(OTHER_ID, "alice").turns == (TURN,)


@pytest.mark.parametrize("at", ["NaN", "Infinity", "-Infinity", "1e300", "-1", "253402300800"])
def test_a_turn_of_no_date_is_none_of_ours(at: str) -> None:
    document = TURN.dump().replace('"at":1.5', f'"at":{at}')
    assert f'"at":{at}' in document
    with pytest.raises(ValueError, match="not a date"):
        Turn.load(document)


def test_what_could_not_be_let_go_of_is_let_go_of_when_the_store_is_back(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make()
    sessions = Sessions(store, max_turns=10, deadline_s=60.0)
    with sessions.join(None, "alice") as first:
        first.keep_turn(TURN)
    cut_off = sessions.join(first.id, "alice")

    def gone(*_: object) -> None:
        raise StoreUnavailable

    with monkeypatch.context() as away:
        away.setattr(type(store), "append", gone)
        away.setattr(type(store), "release", gone)
        with pytest.raises(StoreUnavailable), cut_off:
            cut_off.keep_turn(TURN)
        with pytest.raises(SessionBusy):
            sessions.join(first.id, "alice")
    with sessions.join(first.id, "alice") as again:
        assert again.turns == (TURN,)


def test_turns_stay_in_order(make: Make) -> None:
    store = make()
    kept(store, 25)
    assert [turn.text for turn in store.read(ID, "alice").turns] == [str(number) for number in range(25)]


@pytest.mark.parametrize("owner", ["alice", None, "-", ""])
def test_a_session_is_nowhere_for_all_but_its_owner(make: Make, owner: str | None) -> None:
    store = make()
    kept(store, 1, owner=owner)
    for stranger in {"alice", "bob", None, "-", "", "="} - {owner}:
        for ask in (store.begin, lambda id, who, _: store.read(id, who), lambda id, who, _: store.delete(id, who)):
            with pytest.raises(SessionNotFound):
                ask(ID, stranger, lease())  # type: ignore[operator]
    assert len(store.begin(ID, owner, lease()).turns) == 1, "nor has a stranger held it or removed it"


def test_what_was_never_made_is_not_found(make: Make) -> None:
    store = make()
    with pytest.raises(SessionNotFound):
        store.read(ID, None)
    with pytest.raises(SessionNotFound):
        store.begin(ID, None, lease())
    with pytest.raises(SessionNotFound):
        store.append(ID, TURN, 0, lease())
    with pytest.raises(SessionNotFound):
        store.delete(ID, None)
    store.release(ID, lease())


def test_who_comes_while_a_session_is_held_is_told_to_wait_and_may_still_read(make: Make) -> None:
    one, other = make(), make()
    kept(one, 1)
    own = lease()
    one.begin(ID, "alice", own)
    with pytest.raises(SessionBusy) as caught:
        other.begin(ID, "alice", lease())
    assert caught.value.status == 409 and int(caught.value.headers["Retry-After"]) >= 1
    assert len(other.read(ID, "alice").turns) == 1
    one.append(ID, TURN, 1, own)
    assert len(other.begin(ID, "alice", lease()).turns) == 2


def test_a_new_session_is_held_from_the_start(make: Make) -> None:
    store = make()
    store.create(ID, None, lease())
    with pytest.raises(SessionBusy):
        store.begin(ID, None, lease())


def test_a_release_lets_others_at_it_but_only_the_holders_own(make: Make) -> None:
    store = make()
    kept(store, 1)
    own = lease()
    store.begin(ID, "alice", own)
    store.release(ID, lease())
    with pytest.raises(SessionBusy):
        store.begin(ID, "alice", lease())
    store.release(ID, own)
    store.begin(ID, "alice", lease())


def test_a_lease_ends_by_itself(make: Make) -> None:
    store = make()
    kept(store, 1)
    store.begin(ID, "alice", lease(seconds=0.001))
    waited = threading.Event()
    for _ in range(2000):
        try:
            store.begin(ID, "alice", lease())
            break
        except SessionBusy:
            waited.wait(0.01)
    else:
        pytest.fail("the lease never ended")


def test_a_lease_that_ends_later_than_any_can_holds_nobody_up(make: Make) -> None:
    """What a clock set back by an hour makes of a lease that was left behind."""
    store = make()
    kept(store, 1)
    store.begin(ID, "alice", lease(seconds=HOUR))
    assert len(store.begin(ID, "alice", lease()).turns) == 1


def test_a_lease_of_a_process_that_is_gone_holds_nobody_up(make: Make) -> None:
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    dead = f"{_place()}:{int(done.stdout)}:x"
    store = make()
    kept(store, 1)
    store.begin(ID, "alice", lease(token=dead))
    assert len(store.begin(ID, "alice", lease()).turns) == 1


def test_a_process_that_has_ended_is_dead_before_its_parent_has_noticed() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        token = f"{_place()}:{child.pid}:x"
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, and still to be waited for
        assert is_dead(token)


def test_processes_elsewhere_and_names_that_mean_nothing_count_as_alive() -> None:
    assert not is_dead(Lease.take(1, 1).token)
    assert not is_dead(f"{_place()}:1:x"), "not ours to signal, but there"
    for token in ("", "x", "::", f"{_place()}:x:1", f"{_place()}:{10**30}:1", "elsewhere:999999999:1"):
        assert not is_dead(token)


def test_a_turn_that_did_not_see_the_last_one_is_refused_and_loses_nothing(make: Make) -> None:
    """One whose lease ended before it did; the other came after and was faster."""
    store = make()
    kept(store, 1)
    late, own = lease(seconds=HOUR), lease()
    store.begin(ID, "alice", late)
    store.begin(ID, "alice", own)
    store.append(ID, replace(TURN, text="faster"), 1, own)
    with pytest.raises(SessionBusy):
        store.append(ID, replace(TURN, text="late"), 1, late)
    assert [turn.text for turn in store.read(ID, "alice").turns] == ["0", "faster"]


def test_a_session_without_a_turn_is_gone_with_its_request(make: Make) -> None:
    store = make()
    own = lease()
    store.create(ID, None, own)
    store.release(ID, own)
    with pytest.raises(SessionNotFound):
        store.read(ID, None)


def test_a_deleted_session_is_gone_even_for_who_holds_it(make: Make) -> None:
    store = make()
    kept(store, 2)
    kept(store, 1, id=OTHER_ID)
    own = lease()
    store.begin(ID, "alice", own)
    store.delete(ID, "alice")
    with pytest.raises(SessionNotFound):
        store.append(ID, TURN, 2, own)
    with pytest.raises(SessionNotFound):
        store.read(ID, "alice")
    store.release(ID, own)
    assert len(store.read(OTHER_ID, "alice").turns) == 1


def test_a_session_is_forgotten_after_its_time_and_leaves_nothing(make: Make) -> None:
    short, long = make(ttl_s=0.05), make()
    kept(long, 1)
    kept(long, 1, id=OTHER_ID)
    short.begin(ID, "alice", lease())  # used for the last time
    waited = threading.Event()
    for _ in range(2000):
        try:
            short.read(ID, "alice")
            waited.wait(0.01)
        except SessionNotFound:
            break
    else:
        pytest.fail("it was never forgotten")
    with pytest.raises(SessionNotFound):
        short.begin(ID, "alice", lease())
    with pytest.raises(SessionNotFound):
        short.delete(ID, "alice")
    assert len(long.read(OTHER_ID, "alice").turns) == 1


def test_use_makes_a_session_last(make: Make) -> None:
    kept(make(), 1)
    before = make().read(ID, "alice").expires
    make(ttl_s=10 * HOUR).begin(ID, "alice", lease())
    assert make().read(ID, "alice").expires > before + 8 * HOUR


def test_of_many_requests_at_once_one_is_let_in_and_no_turn_is_lost(make: Make) -> None:
    stores = [make() for _ in range(4)]
    kept(stores[0], 1)
    told: list[str] = []
    together = threading.Barrier(8)

    def ask(number: int) -> None:
        store = stores[number % 4]
        together.wait()
        for attempt in range(4):
            own = lease()
            try:
                session = store.begin(ID, "alice", own)
                store.append(ID, replace(TURN, text=f"{number}/{attempt}"), len(session.turns), own)
            except SessionBusy:
                continue
            told.append(f"{number}/{attempt}")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    stored = [turn.text for turn in stores[0].read(ID, "alice").turns]
    assert sorted(stored[1:]) == sorted(told) and told


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_set_by_an_hour_loses_no_session(make: Make, hours: int, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make(ttl_s=24 * HOUR)
    kept(store, 1)
    for module in (sqlite_module, redis_module):
        now = module.now
        monkeypatch.setattr(module, "now", lambda now=now: now() + hours * HOUR)
    assert len(store.begin(ID, "alice", lease()).turns) == 1


@pytest.mark.parametrize(
    "document",
    ["", "{}", "[]", "null", '{"text":1}', '{"text":"a","sentiment":"b","response":"c","ids":1,"first":0,"at":0}'],
)
def test_what_is_no_turn_is_said_to_be_none(document: str) -> None:
    with pytest.raises(ValueError):
        Turn.load(document)


STRANGE = {
    "text": ("SET", "\xff nonsense"),
    "a number beyond all": ("SET", "9" * 400),
    "a list": ("RPUSH", "[" * 5000, "{}"),
    "a hash of nothing ours": ("HSET", "created", "1e300"),
    "an owner in no alphabet": ("HSET", "owner", b"\xff\xfe", "created", b"\xff"),
    "a set": ("ZADD", "0", "x"),
}


@pytest.mark.parametrize("value", STRANGE.values(), ids=STRANGE)
def test_whatever_stands_in_redis_is_no_more_than_a_store_that_cannot_be_used(
    shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch, value: tuple[str | bytes, ...]
) -> None:
    monkeypatch.setattr("qwen_allinone.away._RETRY_S", 0.0)
    keys = [f"qaio:session:{{{ID}}}{part}" for part in ("", ":turns", ":lease")]
    keys += [f"qaio:owner:{{alice}}:{part}" for part in ("sizes", "expiries", "sum")]
    for key in keys:
        shared_redis.execute("FLUSHALL")
        store = RedisStore(shared_redis.url, ttl_s=HOUR)
        kept(store, 2)
        shared_redis.execute("DEL", key)
        shared_redis.execute(value[0], key, *value[1:])
        own = lease()
        steps: list[Callable[[], object]] = [
            lambda store=store: store.read(ID, "alice"),
            lambda store=store, own=own: store.begin(ID, "alice", own),
            lambda store=store, own=own: store.append(ID, TURN, 2, own),
            lambda store=store, own=own: store.release(ID, own),
            lambda store=store, own=own: store.create(OTHER_ID, "alice", own),
            lambda store=store: store.delete(ID, "alice"),
        ]
        for step in steps:
            with suppress(StoreUnavailable, SessionNotFound, SessionBusy, OwnerFull):
                step()


def test_a_turn_keeps_the_mood_its_reply_was_told() -> None:
    assert Turn.load(replace(TURN, told="平静").dump()).told == "平静"


def test_a_turn_from_before_it_was_kept_was_told_its_sentiment() -> None:
    old = json.loads(TURN.dump())
    del old["told"]
    assert Turn.load(json.dumps(old)) == replace(TURN, told=TURN.sentiment)
    with pytest.raises(ValueError, match="not a turn"):
        Turn.load(json.dumps(old | {"told": 5}))


def test_a_turn_comes_back_as_it_was() -> None:
    assert Turn.load(TURN.dump()) == Turn.load(TURN.dump().encode()) == TURN


def test_a_store_of_redis_that_holds_rubbish_is_unavailable_and_not_wrong(shared_redis: RedisServer) -> None:
    shared_redis.execute("FLUSHALL")
    store = RedisStore(shared_redis.url, ttl_s=HOUR, timeout_s=20.0)
    kept(store, 1)
    shared_redis.execute("RPUSH", f"qaio:session:{{{ID}}}:turns", "rubbish")
    with pytest.raises(StoreUnavailable):
        store.read(ID, "alice")
