"""Answers to requests with a key of their client's, in the SQLite file of conversations."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from qwen_allinone.errors import OnceBusy, OnceMismatch, OnceUnavailable
from qwen_allinone.state.conversations import now
from qwen_allinone.state.lease import Lease, is_dead
from qwen_allinone.state.once import AROUND_BYTES
from qwen_allinone.state.sqlite_file import BUSY_S, SqliteFile, has_table

_TABLES = (
    """
    CREATE TABLE once (
        key TEXT PRIMARY KEY, owner TEXT, asked TEXT NOT NULL, lease TEXT, at REAL NOT NULL, ends REAL NOT NULL,
        answer BLOB, size INTEGER NOT NULL
    ) WITHOUT ROWID
    """,
    "CREATE INDEX once_by_end ON once (ends)",
    "CREATE INDEX once_by_owner ON once (owner, at, size)",
)
# Removed at a time, whenever a key is held: more than are made.
_SWEEP = 8


class SqliteOnce(SqliteFile):
    """An `OnceStore`. `ends` is when a row means nothing any more: of a lease, or of an answer."""

    what = "idempotency keys"
    refused = "requests with an Idempotency-Key"
    unavailable = OnceUnavailable

    def __init__(self, file: Path, *, ttl_s: float, owner_mb: int, max_mb: int = 1000, busy_s: float = BUSY_S) -> None:
        super().__init__(file, max_mb=max_mb, busy_s=busy_s)
        self._ttl_s = ttl_s
        self._owner_bytes = owner_mb * 1_000_000

    def begin(self, key: str, owner: str | None, asked: str, lease: Lease) -> bytes | None:
        self._sweep()
        with self._writing() as db:
            at = now()
            row = db.execute("SELECT asked, lease, ends, answer FROM once WHERE key = ? AND ends > ?", (key, at))
            if found := row.fetchone():
                known, holder, ends, answer = found
                # A lease that ends later than any can is of a clock that was set back since.
                is_held = answer is None and ends <= at + lease.longest_s and not is_dead(holder)
                if known != asked and (is_held or answer is not None):
                    raise OnceMismatch()
                if answer is not None:
                    return bytes(answer)
                if is_held:
                    raise OnceBusy()
            db.execute(
                "INSERT OR REPLACE INTO once VALUES (?, ?, ?, ?, ?, ?, NULL, 0)",
                (key, owner, asked, lease.token, at, at + lease.seconds),
            )
            return None

    def keep(self, key: str, owner: str | None, answer: bytes, lease: Lease) -> None:
        size = len(answer) + AROUND_BYTES
        if size > self._owner_bytes:
            self.release(key, owner, lease)
            return
        with self._writing() as db:
            at = now()
            db.execute(
                "UPDATE once SET answer = ?, size = ?, lease = NULL, at = ?, ends = ? WHERE key = ? AND lease = ?",
                (answer, size, at, at + self._ttl_s, key, lease.token),
            )
            (used,) = db.execute("SELECT coalesce(sum(size), 0) FROM once WHERE owner IS ?", (owner,)).fetchone()
            oldest = "SELECT key, size FROM once WHERE owner IS ? AND size > 0 ORDER BY at LIMIT 1"
            while used > self._owner_bytes:
                gone, freed = db.execute(oldest, (owner,)).fetchone()
                db.execute("DELETE FROM once WHERE key = ?", (gone,))
                used -= freed

    def release(self, key: str, owner: str | None, lease: Lease) -> None:
        with self._writing() as db:
            db.execute("DELETE FROM once WHERE key = ? AND lease = ?", (key, lease.token))

    def _sweep(self) -> None:
        """Remove some that have ended. A step of its own: what it frees must not come back if the next one finds the
        file full."""
        with self._connection() as db:
            db.execute("DELETE FROM once WHERE key IN (SELECT key FROM once WHERE ends <= ? LIMIT ?)", (now(), _SWEEP))

    def _make_tables(self, db: sqlite3.Connection) -> None:
        if not has_table(db, "once"):
            db.execute("BEGIN IMMEDIATE")
            for statement in () if has_table(db, "once") else _TABLES:
                db.execute(statement)
            db.execute("COMMIT")
