"""Sessions in a SQLite file that all workers of this machine share."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from qwen_allinone.errors import OwnerFull, SessionBusy, SessionNotFound
from qwen_allinone.state.conversations import AROUND_BYTES, Session, Turn, now, soon
from qwen_allinone.state.lease import Lease, is_dead
from qwen_allinone.state.sqlite_file import BUSY_S, SqliteFile, has_table

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
# Removed at a time, when a session is made: more than are made, so that old ones never pile up.
_SWEEP = 8


class SqliteStore(SqliteFile):
    """A `Store`."""

    what = "sessions"
    refused = "requests with a session"

    def __init__(
        self, file: Path, *, ttl_s: float, max_mb: int = 1000, owner_mb: int = 100, busy_s: float = BUSY_S
    ) -> None:
        super().__init__(file, max_mb=max_mb, busy_s=busy_s)
        self._ttl_s = ttl_s
        self._owner_mb = owner_mb

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
                raise SessionBusy(retry_after=soon(until - at))
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

    def _make_tables(self, db: sqlite3.Connection) -> None:
        if _version(db) == 0:
            db.execute("BEGIN IMMEDIATE")
            if _version(db) == 0:  # nobody else has made them meanwhile
                for statement in filter(None, map(str.strip, _SCHEMA.split(";"))):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {_VERSION}")
            db.execute("COMMIT")
        if _version(db) != _VERSION:
            raise sqlite3.DatabaseError(f"tables of version {_version(db)}, which this release does not know")
        if not has_table(db, "owners"):
            db.execute("BEGIN IMMEDIATE")
            for statement in () if has_table(db, "owners") else _OWNERS:
                db.execute(statement)
            db.execute("COMMIT")


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])
