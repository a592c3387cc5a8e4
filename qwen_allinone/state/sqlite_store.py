"""Sessions in a SQLite file that all workers of this machine share.

Write-ahead log: readers and the one writer do not wait for each other. `synchronous=FULL`: a turn that was answered is
on the disk, so neither kill -9 nor a loss of power takes it. No connection is shared by two threads at a time, none
outlives a fault or a fork.
"""

from __future__ import annotations

import logging
import math
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from qwen_allinone.errors import OwnerFull, QaioError, SessionBusy, SessionNotFound, StoreUnavailable
from qwen_allinone.state.conversations import AROUND_BYTES, Session, Turn, now
from qwen_allinone.state.lease import Lease, is_dead

log = logging.getLogger(__name__)

_VERSION = 1
_SCHEMA = """
CREATE TABLE sessions (
    id TEXT PRIMARY KEY, owner TEXT, created REAL NOT NULL, expires REAL NOT NULL, lease TEXT, lease_until REAL
) WITHOUT ROWID;
CREATE INDEX sessions_by_expiry ON sessions (expires);
CREATE TABLE turns (
    session TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE, number INTEGER NOT NULL, turn TEXT NOT NULL,
    PRIMARY KEY (session, number)
) WITHOUT ROWID;
"""
# What each owner's turns take: kept by the file itself, so that a release that does not know of it keeps it too. A turn
# counts as its text and what stands around it.
_SIZE = f"length(CAST(turn AS BLOB)) + {AROUND_BYTES}"
_OWNERS = (
    "CREATE INDEX sessions_by_owner ON sessions (owner, expires)",
    "CREATE TABLE owners (owner TEXT PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID",
    f"""
    CREATE TRIGGER turn_kept AFTER INSERT ON turns BEGIN
        INSERT INTO owners SELECT owner, (SELECT {_SIZE} FROM (SELECT new.turn AS turn))
        FROM sessions WHERE id = new.session AND owner IS NOT NULL
        ON CONFLICT (owner) DO UPDATE SET bytes = bytes + excluded.bytes;
    END
    """,
    f"""
    CREATE TRIGGER session_gone BEFORE DELETE ON sessions WHEN old.owner IS NOT NULL BEGIN
        UPDATE owners SET bytes = bytes - (SELECT coalesce(sum({_SIZE}), 0) FROM turns WHERE session = old.id)
        WHERE owner = old.owner;
        DELETE FROM owners WHERE owner = old.owner AND bytes <= 0;
    END
    """,
    f"""
    INSERT INTO owners SELECT owner, sum({_SIZE}) FROM sessions JOIN turns ON turns.session = sessions.id
    WHERE owner IS NOT NULL GROUP BY owner
    """,
)
_BUSY_S = 2.0  # most that one request waits for another writer
# Removed at a time, when a session is made: more than are made, so that old ones never pile up.
_SWEEP = 8
_LEFT_WAL_BYTES = 16_000_000


class _Connection(sqlite3.Connection):
    """One that knows the process and the file it belongs to."""

    home: tuple[int, ...] = ()


class SqliteStore:
    """A `Store`. The file and its folder are made when first needed."""

    def __init__(
        self, file: Path, *, ttl_s: float, max_mb: int = 1000, owner_mb: int = 100, busy_s: float = _BUSY_S
    ) -> None:
        self._file = file.absolute()
        self._ttl_s = ttl_s
        self._max_mb = max_mb
        self._owner_mb = owner_mb
        self._busy_s = busy_s
        self._lock = threading.Lock()
        self._making = threading.Lock()
        self._idle: list[_Connection] = []
        self._inherited: list[_Connection] = []
        self._complaint = ""

    def problem(self) -> str | None:
        """Why the file cannot be used, as far as that shows without making it."""
        folder = self._file.parent
        try:
            while not folder.exists() and folder != folder.parent:
                folder = folder.parent
            if not os.access(folder, os.W_OK | os.X_OK) or not folder.is_dir():
                return f"the folder {folder} is not writable"
            if self._file.exists() and not (self._file.is_file() and os.access(self._file, os.R_OK | os.W_OK)):
                return f"{self._file} is no file that can be read and written"
        except OSError as error:  # a folder that may not be looked into
            return f"{self._file}: {error.strerror}"
        return None

    def create(self, id: str, owner: str | None, lease: Lease) -> None:
        self._sweep()
        self._check_share(owner)
        at = now()
        with self._writing() as db:
            db.execute(
                "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?)",
                (id, owner, at, at + self._ttl_s, lease.token, at + lease.seconds),
            )

    def begin(self, id: str, owner: str | None, lease: Lease) -> Session:
        self._check_share(owner)
        with self._writing() as db:
            at = now()
            session = self._session(db, id, owner)
            holder, until = db.execute("SELECT lease, lease_until FROM sessions WHERE id = ?", (id,)).fetchone()
            # A lease that ends later than any can is of a clock that was set back since.
            if holder and at < until <= at + lease.longest_s and not is_dead(holder):
                raise SessionBusy(retry_after=_soon(until - at))
            db.execute(
                "UPDATE sessions SET lease = ?, lease_until = ?, expires = ? WHERE id = ?",
                (lease.token, at + lease.seconds, at + self._ttl_s, id),
            )
            return session

    def append(self, id: str, turn: Turn, number: int, lease: Lease) -> None:
        with self._writing() as db:
            if not db.execute("SELECT 1 FROM sessions WHERE id = ?", (id,)).fetchone():
                raise SessionNotFound()
            (count,) = db.execute("SELECT count(*) FROM turns WHERE session = ?", (id,)).fetchone()
            if count != number:
                raise SessionBusy()
            db.execute("INSERT INTO turns VALUES (?, ?, ?)", (id, number, turn.dump()))
            self._let_go(db, id, lease)
            db.execute("UPDATE sessions SET expires = ? WHERE id = ?", (now() + self._ttl_s, id))

    def release(self, id: str, lease: Lease) -> None:
        with self._writing() as db:
            self._let_go(db, id, lease)
            db.execute(
                "DELETE FROM sessions WHERE id = ? AND lease IS NULL"
                " AND NOT EXISTS (SELECT 1 FROM turns WHERE session = id)",
                (id,),
            )

    def read(self, id: str, owner: str | None) -> Session:
        with self._connection() as db:
            db.execute("BEGIN")  # one view of both tables
            try:
                return self._session(db, id, owner)
            finally:
                db.execute("ROLLBACK")

    def delete(self, id: str, owner: str | None) -> None:
        with self._writing() as db:
            self._session(db, id, owner)
            db.execute("DELETE FROM sessions WHERE id = ?", (id,))

    def close(self) -> None:
        """Close the connections that nobody uses."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _check_share(self, owner: str | None) -> None:
        """Raises OwnerFull. Looked at before a turn is computed: those under way may still be kept.

        What has expired makes room, some at a time, in steps of their own: others write too.
        """
        with self._connection() as db:
            while self._is_full(db, owner):
                expired = "SELECT id FROM sessions WHERE owner = ? AND expires <= ? LIMIT ?"
                if not db.execute(expired, (owner, now(), 1)).fetchone():
                    raise OwnerFull(self._owner_mb)
                db.execute(f"DELETE FROM sessions WHERE id IN ({expired})", (owner, now(), _SWEEP))

    def _is_full(self, db: sqlite3.Connection, owner: str | None) -> bool:
        found = db.execute("SELECT bytes FROM owners WHERE owner = ?", (owner,)).fetchone()
        return bool(found and found[0] >= self._owner_mb * 1_000_000)

    @staticmethod
    def _session(db: sqlite3.Connection, id: str, owner: str | None) -> Session:
        found = db.execute(
            "SELECT created, expires FROM sessions WHERE id = ? AND owner IS ? AND expires > ?", (id, owner, now())
        ).fetchone()
        if found is None:
            raise SessionNotFound()
        rows = db.execute("SELECT turn FROM turns WHERE session = ? ORDER BY number", (id,))
        created, expires = found
        return Session(id, created, expires, tuple(Turn.load(row[0]) for row in rows))

    @staticmethod
    def _let_go(db: sqlite3.Connection, id: str, lease: Lease) -> None:
        db.execute("UPDATE sessions SET lease = NULL WHERE id = ? AND lease = ?", (id, lease.token))

    def _sweep(self) -> None:
        """Remove some sessions that have expired. A step of its own: what it frees must not come back if the next
        one finds the file full."""
        with self._connection() as db:
            db.execute(
                "DELETE FROM sessions"
                " WHERE id IN (SELECT id FROM sessions WHERE expires <= ? ORDER BY expires LIMIT ?)",
                (now(), _SWEEP),
            )

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction that is alone from its first look on."""
        with self._connection() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
                self._recover()
            except BaseException:
                if db.in_transaction:  # a full disk has ended it already
                    with suppress(sqlite3.Error):
                        db.execute("ROLLBACK")
                raise

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """A connection for one operation; whatever goes wrong with it is StoreUnavailable."""
        connection = None
        try:
            connection = self._take() or self._open()
            yield connection
        except QaioError:
            self._give_back(connection)
            raise
        except (sqlite3.Error, OSError, ValueError, OverflowError) as error:  # ValueError: what was stored is no turn
            if connection is not None:
                connection.close()
            self._complain(error)
            raise StoreUnavailable() from error
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        else:
            self._give_back(connection)

    def _take(self) -> _Connection | None:
        """An idle connection to the file as it is now, if there is one."""
        with self._lock:
            home = self._home()
            while self._idle:
                connection = self._idle.pop()
                if connection.home == home:
                    return connection
                if connection.home[0] == home[0]:  # the file has been exchanged
                    connection.close()
                else:  # forked: closing it here would take the parent's locks
                    self._inherited.append(connection)
            return None

    def _give_back(self, connection: _Connection | None) -> None:
        if connection is not None:
            with self._lock:
                self._idle.append(connection)

    def _home(self) -> tuple[int, ...]:
        """This process and the file as it is now."""
        try:
            status = self._file.stat()
        except FileNotFoundError:
            return (os.getpid(),)
        return os.getpid(), status.st_dev, status.st_ino

    def _open(self) -> _Connection:
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._make_file()
        home = self._home()
        connection = sqlite3.connect(
            self._file, timeout=self._busy_s, isolation_level=None, check_same_thread=False, factory=_Connection
        )
        connection.home = home
        try:
            self._set_up(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _make_file(self) -> None:
        """If it is not there, an empty one for its owner alone: it holds what people wrote. SQLite gives its other two
        the same mode.

        Closing a file takes the locks that this process has on it, SQLite's too. So only a new one is opened here, and
        closed before any connection to it can be made.
        """
        with self._making, suppress(FileExistsError):
            os.close(os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    def _set_up(self, db: sqlite3.Connection) -> None:
        _use_wal(db, self._busy_s)
        (page_bytes,) = db.execute("PRAGMA page_size").fetchone()
        for pragma in (
            "synchronous = FULL",
            "foreign_keys = ON",
            "secure_delete = ON",  # what is deleted is overwritten
            f"journal_size_limit = {_LEFT_WAL_BYTES}",
        ):
            db.execute(f"PRAGMA {pragma}")
        if _version(db) == 0:
            db.execute("BEGIN IMMEDIATE")
            if _version(db) == 0:  # nobody else has made them meanwhile
                for statement in filter(None, map(str.strip, _SCHEMA.split(";"))):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {_VERSION}")
            db.execute("COMMIT")
        if _version(db) != _VERSION:
            raise sqlite3.DatabaseError(f"tables of version {_version(db)}, which this release does not know")
        if not _counts_owners(db):
            db.execute("BEGIN IMMEDIATE")
            for statement in () if _counts_owners(db) else _OWNERS:
                db.execute(statement)
            db.execute("COMMIT")
        # After the tables: a file that is full already must still be read, and emptied.
        db.execute(f"PRAGMA max_page_count = {self._max_mb * 1_000_000 // page_bytes}")

    def _complain(self, error: Exception) -> None:
        if str(error) != self._complaint:
            log.error(
                "sessions: %s: %s; requests with a session are answered 503 until that is mended (QAIO_SESSIONS_FILE)",
                self._file,
                error,
            )
            self._complaint = str(error)

    def _recover(self) -> None:
        if self._complaint:
            log.info("sessions: %s: usable again", self._file)
            self._complaint = ""


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _counts_owners(db: sqlite3.Connection) -> bool:
    return db.execute("SELECT 1 FROM sqlite_master WHERE name = 'owners'").fetchone() is not None


def _use_wal(db: sqlite3.Connection, busy_s: float) -> None:
    """Of two processes that switch a new file at the same time, SQLite tells one at once that it is locked."""
    ends = time.monotonic() + busy_s
    while True:
        try:
            with closing(db.execute("PRAGMA journal_mode = WAL")) as mode:
                if mode.fetchone()[0] == "wal":
                    return
            raise sqlite3.DatabaseError("no write-ahead log on this file system; use a local disk")
        except sqlite3.OperationalError:
            if time.monotonic() >= ends:
                raise
            time.sleep(0.02)


def _soon(seconds: float) -> int:
    """When to ask again: most answers take seconds, however long their lease."""
    return min(max(1, math.ceil(seconds)), 2)
