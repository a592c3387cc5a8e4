"""The file of sessions under what happens to files: locked, full, broken, exchanged, out of reach, forked."""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from qwen_allinone.errors import SessionNotFound, StoreUnavailable
from qwen_allinone.state import SqliteStore
from qwen_allinone.state.conversations import now
from tests.unit.state.test_stores import HOUR, ID, OTHER_ID, TURN, kept, lease

SECRET = "只有我知道的话"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "sessions.db"


@pytest.fixture
def store(file: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(file, ttl_s=HOUR, busy_s=0.2)
    yield opened
    opened.close()


def ids(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as db:
        return [row[0] for row in db.execute("SELECT id FROM sessions ORDER BY id")]


def test_the_file_is_made_when_first_needed_for_its_owner_alone(store: SqliteStore, file: Path) -> None:
    assert store.problem() is None and not file.parent.exists()
    kept(store, 1)
    for made in (file, *file.parent.glob("sessions.db-*")):
        assert stat.S_IMODE(made.stat().st_mode) == 0o600, made
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert len(list(file.parent.iterdir())) == 3


def test_opening_the_file_takes_no_lock_that_others_of_this_process_hold(store: SqliteStore, file: Path) -> None:
    """POSIX: whoever closes a file gives up all locks that his process has on it, and SQLite's with them."""
    kept(store, 1)

    def locks() -> list[str]:
        own = f" {os.getpid()} "
        node = f":{file.stat().st_ino} "
        lines = [line for line in Path("/proc/locks").read_text().splitlines() if own in line and node in line]
        return [line.partition(":")[2] for line in lines]  # the number before it counts the whole machine's

    with store._connection() as db:
        db.execute("BEGIN")
        db.execute("SELECT * FROM sessions").fetchall()
        before = locks()
        threads = [threading.Thread(target=store.read, args=(ID, "alice")) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        store._open().close()
        assert before and locks() == before
        db.execute("ROLLBACK")


def test_turns_are_written_through_to_the_disk(store: SqliteStore) -> None:
    kept(store, 1)
    with store._connection() as db:
        assert db.execute("PRAGMA synchronous").fetchone() == (2,)
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_while_somebody_has_locked_the_file_nothing_is_kept_and_nothing_lost(
    store: SqliteStore, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "qwen_allinone")
    kept(store, 2)
    own = lease()
    store.begin(ID, "alice", own)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        for attempt in (
            lambda: store.append(ID, TURN, 2, own),
            lambda: store.create(OTHER_ID, None, lease()),
            lambda: store.begin(ID, "alice", lease()),
            lambda: store.release(ID, own),
            lambda: store.delete(ID, "alice"),
        ):
            with pytest.raises(StoreUnavailable) as caught:
                attempt()
            assert (caught.value.status, caught.value.retry_after) == (503, 5)
        assert len(store.read(ID, "alice").turns) == 2, "reading waits for no writer"
    store.append(ID, TURN, 2, own)
    assert len(store.read(ID, "alice").turns) == 3 and ids(file) == [ID]
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"], "told once, and when it is over"
    assert str(file) in caplog.text and "QAIO_SESSIONS_FILE" in caplog.text


def test_when_the_file_is_full_what_is_kept_stays_and_the_next_turn_is_refused(file: Path) -> None:
    store = SqliteStore(file, ttl_s=HOUR, max_mb=1)
    long = replace(TURN, text="长" * 20_000)
    own = lease()
    store.create(ID, None, own)
    number = 0
    with pytest.raises(StoreUnavailable):
        for number in range(1000):
            store.append(ID, long, number, own)
    assert 5 < number < 30 and file.stat().st_size <= 1_100_000
    assert store.read(ID, None).turns == (long,) * number
    # What others delete, or what expires, makes room again.
    store.delete(ID, None)
    kept(store, 1)
    store.close()


def test_a_full_disk_is_told_and_loses_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system of half a megabyte, for which the machine must let us mount one."""
    disk = file.parent
    disk.mkdir()
    if os.geteuid() != 0 or os.system(f"mount -t tmpfs -o size=512k none {disk} 2>/dev/null") != 0:
        pytest.skip("needs the right to mount a file system")
    store = SqliteStore(file, ttl_s=HOUR)
    try:
        own = lease()
        store.create(ID, None, own)
        number = 0
        with pytest.raises(StoreUnavailable):
            for number in range(1000):
                store.append(ID, replace(TURN, text="长" * 5_000), number, own)
        assert number > 1 and len(store.read(ID, None).turns) == number
    finally:
        store.close()
        os.system(f"umount -l {disk}")


BROKEN = {
    "overwritten at the beginning": lambda raw: b"\xff" * 4096 + raw[4096:],
    "overwritten everywhere": lambda raw: b"\xff" * len(raw),
    "not a database": lambda raw: b"hello\n",
    "cut": lambda raw: raw[: len(raw) // 2],
}


@pytest.mark.parametrize("damage", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_unavailable_is_left_alone_and_heals_when_it_is_put_back(
    store: SqliteStore, file: Path, damage: object
) -> None:
    for number in range(20):
        kept(store, 5, id=f"{number:032d}")
    store.close()  # all is in the file then
    good = file.read_bytes()
    broken: bytes = damage(good)  # type: ignore[operator]
    file.write_bytes(broken)
    with pytest.raises(StoreUnavailable):
        for number in range(20):
            store.begin(f"{number:032d}", "alice", lease())
    with pytest.raises(StoreUnavailable):
        for number in range(20):
            store.delete(f"{number:032d}", "alice")
    store.close()
    assert file.stat().st_size <= len(good)
    for extra in file.parent.glob("sessions.db-*"):
        extra.unlink()
    file.write_bytes(good)
    assert [len(store.read(f"{number:032d}", "alice").turns) for number in range(20)] == [5] * 20


def test_a_turn_that_cannot_be_read_makes_its_session_unavailable_only(store: SqliteStore, file: Path) -> None:
    kept(store, 2)
    kept(store, 1, id=OTHER_ID)
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("UPDATE turns SET turn = 'rubbish' WHERE session = ? AND number = 1", (ID,))
    with pytest.raises(StoreUnavailable):
        store.begin(ID, "alice", lease())
    assert len(store.begin(OTHER_ID, "alice", lease()).turns) == 1


def test_tables_of_a_newer_release_are_not_touched(store: SqliteStore, file: Path) -> None:
    kept(store, 1)
    store.close()
    with closing(sqlite3.connect(file)) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreUnavailable):
        store.read(ID, "alice")
    with closing(sqlite3.connect(file)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (99,)


def test_a_file_that_is_exchanged_while_connections_are_open_is_noticed(store: SqliteStore, file: Path) -> None:
    kept(store, 1)
    copy = SqliteStore(file.with_name("copy.db"), ttl_s=HOUR)
    kept(copy, 3)
    copy.close()
    os.replace(file.with_name("copy.db"), file)
    for extra in file.parent.glob("sessions.db-*"):
        extra.unlink()
    assert len(store.read(ID, "alice").turns) == 3


def test_a_file_that_is_deleted_is_made_anew(store: SqliteStore, file: Path) -> None:
    kept(store, 1)
    for made in file.parent.iterdir():
        made.unlink()
    with pytest.raises(SessionNotFound):
        store.read(ID, "alice")
    kept(store, 2)
    assert len(store.read(ID, "alice").turns) == 2


def test_a_place_that_cannot_be_written_to_is_named_and_harms_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = SqliteStore(tmp_path / "file" / "sessions.db", ttl_s=HOUR)
    assert "is not writable" in str(store.problem())
    with pytest.raises(StoreUnavailable):
        store.create(ID, None, lease())
    with pytest.raises(StoreUnavailable):
        store.read(ID, None)


def test_expired_sessions_are_removed_as_new_ones_are_made(file: Path) -> None:
    old, new = SqliteStore(file, ttl_s=-1), SqliteStore(file, ttl_s=HOUR)
    own = lease()
    for number in range(20):
        with old._writing() as db:
            db.execute("INSERT INTO sessions VALUES (?, NULL, 0, 0, NULL, NULL)", (f"{number:032d}",))
            db.execute("INSERT INTO turns VALUES (?, 0, ?)", (f"{number:032d}", TURN.dump()))
    new.create(ID, None, own)
    assert len(ids(file)) == 13, "a few at a time: no request pays for all of them"
    for number in range(3):
        new.create(f"x{number:031d}", None, lease())
    assert len(ids(file)) == 4
    with closing(sqlite3.connect(file)) as db:
        assert db.execute("SELECT count(*) FROM turns").fetchone() == (0,)
    old.close()
    new.close()


def test_what_is_deleted_is_overwritten(store: SqliteStore, file: Path) -> None:
    own = lease()
    store.create(ID, None, own)
    store.append(ID, replace(TURN, text=SECRET), 0, own)
    store.delete(ID, None)
    store.close()
    assert SECRET.encode() not in b"".join(made.read_bytes() for made in file.parent.iterdir())


def test_no_connection_is_left_open_or_piles_up(store: SqliteStore, file: Path) -> None:
    def files() -> int:
        links = []
        for entry in Path("/proc/self/fd").iterdir():
            with suppress(FileNotFoundError):  # another thread's, closed meanwhile
                links.append(os.readlink(entry))
        return sum(str(file) in link for link in links)

    kept(store, 1)
    before = files()
    threads = [threading.Thread(target=store.read, args=(ID, "alice")) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(store._idle) <= 20
    store.close()
    assert before > 0 == files()


def test_a_child_of_a_fork_opens_connections_of_its_own(store: SqliteStore) -> None:
    kept(store, 1)
    with store._connection() as mine:
        pass
    pid = os.getpid()
    try:
        # What the child sees after a fork, without the risks of forking a process of many threads.
        os_getpid, os.getpid = os.getpid, lambda: pid + 1
        with store._connection() as theirs:
            assert theirs is not mine
        assert mine in store._inherited, "neither used nor closed: that would take the parent's locks"
    finally:
        os.getpid = os_getpid
    for connection in store._inherited:
        connection.close()


def test_a_file_from_before_owners_had_shares_is_counted_when_it_is_opened(file: Path) -> None:
    before = SqliteStore(file, ttl_s=HOUR)
    kept(before, 3)
    kept(before, 2, OTHER_ID, owner="bob")
    with closing(sqlite3.connect(file)) as db:
        before_bytes = dict(db.execute("SELECT owner, bytes FROM owners"))
        for name in ("TRIGGER turn_kept", "TRIGGER session_gone", "TABLE owners", "INDEX sessions_by_owner"):
            db.execute(f"DROP {name}")
        db.commit()
    before.close()
    after = SqliteStore(file, ttl_s=HOUR)
    after.read(ID, "alice")
    with closing(sqlite3.connect(file)) as db:
        assert dict(db.execute("SELECT owner, bytes FROM owners")) == before_bytes and set(before_bytes) == {
            "alice",
            "bob",
        }
    after.delete(ID, "alice")
    with closing(sqlite3.connect(file)) as db:
        assert [row[0] for row in db.execute("SELECT owner FROM owners")] == ["bob"]
    after.close()


def test_an_owner_full_of_what_has_expired_is_not_full(file: Path) -> None:
    store = SqliteStore(file, ttl_s=0.3, owner_mb=1)
    for number in range(30):
        kept_big(store, f"{number:032}")
    time.sleep(0.4)
    kept(store, 1, OTHER_ID)
    store.close()


def kept_big(store: SqliteStore, id: str) -> None:
    own = lease()
    with store._connection() as db:  # past the check, as those under way are
        db.execute("INSERT INTO sessions VALUES (?, 'alice', ?, ?, NULL, NULL)", (id, now(), now() + 0.3))
    store.append(id, replace(TURN, text="x" * 60_000), 0, own)
