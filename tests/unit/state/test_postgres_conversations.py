"""What goes for conversations in PostgreSQL alone: its files, its absence, its locks, the connections it costs."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from qwen_allinone.errors import SessionBusy, SessionNotFound, StoreUnavailable
from qwen_allinone.postgres_link import PostgresLink
from qwen_allinone.state import PostgresMemories, PostgresOnce, PostgresStore, PostgresUsage, Turn, UsageLine, Whose
from qwen_allinone.state.usage import Counts
from tests.support.postgres_server import PostgresServer
from tests.unit.state.stores import HOUR, lease, links

DATABASE = "conversations"
ID, OTHER_ID = "a" * 32, "b" * 32
TURN = Turn("我的猫走丢了", "负面", "平静", "抱抱你", at=1.5)

MakeLink = Callable[..., PostgresLink]


@pytest.fixture
def link(shared_postgres: PostgresServer) -> Iterator[MakeLink]:
    with links(shared_postgres, DATABASE) as make:
        yield make


@pytest.fixture
def own_link(own_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeLink]:
    """To one that a test may kill; it is asked again at once."""
    monkeypatch.setattr("qwen_allinone.away._RETRY_S", 0.0)
    with links(own_postgres, DATABASE) as make:
        yield make


def new(link: PostgresLink, ttl_s: float = HOUR, erase_every_s: float = 0.0) -> PostgresStore:
    return PostgresStore(link, ttl_s=ttl_s, owner_mb=1, erase_every_s=erase_every_s)


def kept(store: PostgresStore, *texts: str, id: str = ID, owner: str | None = "alice") -> None:
    own = lease()
    store.create(id, owner, own)
    for number, text in enumerate(texts):
        store.append(id, replace(TURN, text=text), number, own)
    store.release(id, own)


def texts(store: PostgresStore, id: str = ID, owner: str | None = "alice") -> list[str]:
    return [turn.text for turn in store.read(id, owner).turns]


def test_of_what_is_deleted_no_byte_stays_in_the_files(shared_postgres: PostgresServer, link: MakeLink) -> None:
    """Of short turns and of such as PostgreSQL keeps beside the table, even while somebody holds a snapshot from before
    and though the planner has looked at the tables."""
    store, other = new(link()), new(link())
    long = "".join(f"Quetzalcoatlus{secrets.token_hex(20)}" for _ in range(400))
    sessions = [f"{number:032}" for number in range(8)]
    for id in sessions:
        kept(store, f"Quetzalcoatlus {id}", long, id=id)
        kept(store, f"Pteranodon {id}", id=id.replace("0", "x"))
    shared_postgres.execute("ANALYZE", DATABASE)
    assert b"Quetzalcoatlus" in shared_postgres.files(), "or the test shows nothing"
    isolated = "-c default_transaction_isolation=serializable"
    with shared_postgres._psycopg.connect(shared_postgres.url(DATABASE), options=isolated) as old:
        old.execute("SELECT count(*) FROM pg_class")
        for id in sessions:
            store.delete(id, "alice")
        other.tidy()
        found = shared_postgres.files()
    assert b"Quetzalcoatlus" not in found
    assert all(f"Pteranodon {id}".encode() in found for id in sessions)
    for id in sessions:
        assert texts(store, id.replace("0", "x")) == [f"Pteranodon {id}"]


def test_what_is_to_be_erased_waits_its_time_and_outlives_who_deleted_it(
    shared_postgres: PostgresServer, link: MakeLink
) -> None:
    store, later = new(link(), erase_every_s=HOUR), new(link(), erase_every_s=0.0)
    for text in ("Quetzalcoatlus one", "Quetzalcoatlus two"):
        kept(store, text)
        store.delete(ID, "alice")
        store.tidy()
    found = shared_postgres.files()
    assert b"Quetzalcoatlus one" not in found and b"Quetzalcoatlus two" in found
    later.tidy()
    assert b"Quetzalcoatlus" not in shared_postgres.files()


def test_an_erasing_that_somebody_holds_up_is_tried_again_and_loses_nothing(
    shared_postgres: PostgresServer, link: MakeLink
) -> None:
    store = new(link(timeout_s=0.5))
    kept(store, "Quetzalcoatlus")
    kept(store, "Pteranodon", id=OTHER_ID)
    with shared_postgres._psycopg.connect(shared_postgres.url(DATABASE)) as reader:
        reader.execute("SELECT count(*) FROM qaio_turns")
        store.delete(ID, "alice")
        store.tidy()
        assert b"Quetzalcoatlus" in shared_postgres.files()
    store.tidy()
    assert b"Quetzalcoatlus" not in shared_postgres.files()
    assert texts(store, OTHER_ID) == ["Pteranodon"]


def test_while_parts_are_written_anew_no_turn_is_lost_and_none_doubled(link: MakeLink) -> None:
    ids = [secrets.token_hex(16) for _ in range(6)]
    for id in ids:
        kept(new(link()), "0", id=id)
    is_over = threading.Event()
    failures: list[Exception] = []

    def go_on(id: str) -> None:
        store = new(link())
        try:
            for number in range(1, 15):
                own = lease()
                assert [turn.text for turn in store.begin(id, "alice", own).turns] == [str(n) for n in range(number)]
                store.append(id, replace(TURN, text=str(number)), number, own)
        except Exception as error:
            failures.append(error)

    def disturb() -> None:
        store = new(link())
        while not is_over.is_set():
            id = secrets.token_hex(16)
            kept(store, "x", id=id)
            store.delete(id, "alice")
            store.tidy()

    disturbers = [threading.Thread(target=disturb) for _ in range(2)]
    crowd = [threading.Thread(target=go_on, args=(id,)) for id in ids]
    for thread in (*disturbers, *crowd):
        thread.start()
    for thread in crowd:
        thread.join(100)
    is_over.set()
    for thread in disturbers:
        thread.join(100)
    assert not failures
    for id in ids:
        assert texts(new(link()), id) == [str(number) for number in range(15)]


def begun_and_waiting(postgres: PostgresServer, ask: Callable[[], object]) -> threading.Thread:
    """A thread that asks, and waits for a row that somebody else holds."""
    thread = threading.Thread(target=ask)
    thread.start()
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    ends = time.monotonic() + 60
    while postgres.execute(waits) == [(0,)]:
        assert time.monotonic() < ends
        time.sleep(0.02)
    return thread


def test_a_session_that_is_let_go_of_while_its_first_turn_is_kept_stays(
    shared_postgres: PostgresServer, link: MakeLink
) -> None:
    """A late release looks at the turns after it has waited for who holds the row, not before."""
    store, own = new(link()), lease()
    store.create(ID, "alice", own)
    shared_postgres.execute("UPDATE qaio_sessions SET lease = NULL", DATABASE)
    with shared_postgres._psycopg.connect(shared_postgres.url(DATABASE)) as other:
        other.execute("SELECT FROM qaio_sessions FOR UPDATE")
        releasing = begun_and_waiting(shared_postgres, lambda: store.release(ID, own))
        other.execute("INSERT INTO qaio_turns VALUES (%s, 0, %s, 1)", (ID, TURN.dump()))
    releasing.join(30)
    assert texts(store) == [TURN.text]


def test_of_two_who_begin_at_the_same_moment_the_second_sees_the_first_ones_hold(
    shared_postgres: PostgresServer, link: MakeLink
) -> None:
    store, told = new(link()), list[object]()
    kept(store, "x")

    def begin() -> None:
        try:
            told.append(store.begin(ID, "alice", lease()))
        except SessionBusy as error:
            told.append(error)

    with shared_postgres._psycopg.connect(shared_postgres.url(DATABASE)) as other:
        until = "extract(epoch FROM now()) + 50"
        other.execute(f"UPDATE qaio_sessions SET lease = 'elsewhere:1:x', lease_until = {until}")
        second = begun_and_waiting(shared_postgres, begin)
    second.join(30)
    assert [type(answer) for answer in told] == [SessionBusy]


def test_what_has_expired_is_removed_without_anybody_asking(shared_postgres: PostgresServer, link: MakeLink) -> None:
    store = new(link(), ttl_s=0.2)
    for number, owner in enumerate(("alice", "bob", None)):
        kept(store, "x", id=f"{number:032}", owner=owner)
    kept(new(link()), "stays", id=ID)
    store.start()
    try:
        ends = time.monotonic() + 60
        while shared_postgres.execute("SELECT count(*) FROM qaio_turns", DATABASE) != [(1,)]:
            assert time.monotonic() < ends
            time.sleep(0.05)
    finally:
        store.stop()
    assert shared_postgres.execute("SELECT id FROM qaio_sessions", DATABASE) == [(ID,)]
    assert shared_postgres.execute("SELECT owner FROM qaio_session_shares", DATABASE) == [("=alice",)]


def test_what_is_counted_of_an_owner_is_what_its_turns_take(shared_postgres: PostgresServer, link: MakeLink) -> None:
    store = new(link())
    for number in range(4):
        kept(store, "长" * number, "x", id=f"{number:032}")
    store.delete(f"{1:032}", "alice")
    shares = shared_postgres.execute("SELECT bytes FROM qaio_session_shares", DATABASE)
    assert shares == shared_postgres.execute("SELECT sum(bytes)::bigint FROM qaio_turns", DATABASE)


def steps(store: PostgresStore) -> list[Callable[[], object]]:
    return [
        lambda: store.create(OTHER_ID, "alice", lease()),
        lambda: store.begin(ID, "alice", lease()),
        lambda: store.append(ID, TURN, 1, lease()),
        lambda: store.release(ID, lease()),
        lambda: store.read(ID, "alice"),
        lambda: store.delete(ID, "alice"),
        store.tidy,
    ]


def test_a_postgres_that_is_gone_is_a_store_that_cannot_be_used_until_it_is_back(
    own_postgres: PostgresServer, own_link: MakeLink, caplog: pytest.LogCaptureFixture
) -> None:
    store = new(own_link())
    kept(store, "说过的话")
    own_postgres.kill()
    for step in steps(store):
        with pytest.raises(StoreUnavailable):
            step()
    own_postgres.start()
    assert texts(store) == ["说过的话"], "what was answered outlives a crash"
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 1 and "does not answer" in told[0], "said once, not for each request"


def test_a_restart_between_two_questions_is_noticed_by_nobody(
    own_postgres: PostgresServer, own_link: MakeLink, caplog: pytest.LogCaptureFixture
) -> None:
    store = new(own_link())
    kept(store, "说过的话")
    own_postgres.kill()
    own_postgres.start()
    assert texts(store) == ["说过的话"] and not caplog.records


def test_a_frozen_postgres_is_not_waited_for_without_end(own_postgres: PostgresServer, own_link: MakeLink) -> None:
    store = new(own_link(timeout_s=1.0))
    kept(store, "说过的话")
    own_postgres.freeze()
    began = time.monotonic()
    for _ in range(2):  # on the connection there is; on one that has to be made
        with pytest.raises(StoreUnavailable):
            store.read(ID, "alice")
    assert time.monotonic() - began < 60
    own_postgres.thaw()
    assert texts(store) == ["说过的话"]


def test_tables_that_somebody_dropped_are_made_anew(shared_postgres: PostgresServer, link: MakeLink) -> None:
    store = new(link())
    kept(store, "x")
    shared_postgres.execute("DROP TABLE qaio_sessions, qaio_turns, qaio_session_shares, qaio_erasing", DATABASE)
    with pytest.raises(StoreUnavailable):
        store.read(ID, "alice")
    kept(store, "y")
    assert texts(store) == ["y"]


@pytest.mark.parametrize("turn", ["", "rubbish", "{}"])
def test_a_turn_that_is_none_of_ours_makes_its_session_unavailable_only(
    shared_postgres: PostgresServer, link: MakeLink, turn: str
) -> None:
    store = new(link())
    kept(store, "x")
    kept(store, "y", id=OTHER_ID)
    shared_postgres.execute(f"UPDATE qaio_turns SET turn = '{turn}' WHERE session = '{ID}'", DATABASE)
    with pytest.raises(StoreUnavailable):
        store.read(ID, "alice")
    assert texts(store, OTHER_ID) == ["y"]
    store.delete(ID, "alice")
    with pytest.raises(SessionNotFound):
        store.read(ID, "alice")


def test_workers_that_start_at_once_make_the_tables_once(link: MakeLink) -> None:
    together = threading.Barrier(6)
    failures: list[Exception] = []

    def start(number: int) -> None:
        store = new(link())
        together.wait()
        try:
            kept(store, "x", id=f"{number:032}")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=start, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures


def test_all_that_a_worker_keeps_there_shares_its_connections(shared_postgres: PostgresServer, link: MakeLink) -> None:
    one = link()
    kept(new(one), "x")
    PostgresMemories(one, ttl_s=HOUR, most=10).add(Whose("alice", "u-1"), "用户有猫")
    PostgresOnce(one, ttl_s=HOUR, owner_mb=1).begin("k", "alice", "asked", lease())
    usage = PostgresUsage(one, days=3)
    usage.add("batch", {UsageLine("2026-01-01", "alice", "task", "chat"): Counts(1)})
    held = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{DATABASE}' AND application_name = 'qwen-allinone'"
    assert shared_postgres.execute(held) == [(1,)]


def test_a_user_who_may_not_make_tables_uses_those_that_are_there(
    shared_postgres: PostgresServer, link: MakeLink
) -> None:
    kept(new(link()), "x")
    shared_postgres.execute("DROP ROLE IF EXISTS guest")
    shared_postgres.execute("CREATE ROLE guest LOGIN PASSWORD 'guest'")
    shared_postgres.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO guest", DATABASE)
    guest = PostgresLink(shared_postgres.url(DATABASE, "guest", "guest"), timeout_s=20.0)
    store = new(guest)
    own = lease()
    store.begin(ID, "alice", own)
    with pytest.raises(SessionBusy):
        store.begin(ID, "alice", lease())
    store.append(ID, TURN, 1, own)
    assert texts(store) == ["x", TURN.text]
    guest.close()
    shared_postgres.execute("DROP OWNED BY guest", DATABASE)
    shared_postgres.execute("DROP ROLE guest")
