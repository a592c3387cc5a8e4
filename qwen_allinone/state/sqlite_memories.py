"""Memories in the SQLite file of conversations, in tables of their own.

There is no index of words: words and vectors are looked for in one user's own rows, which are read anyway. So nothing
of what was deleted stays in one, and how rare a word is among others' memories decides nothing.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from qwen_allinone.errors import MemoryFull, MemoryNotFound, MemoryUnavailable
from qwen_allinone.state.likeness import likest
from qwen_allinone.state.memories import AROUND_BYTES, Held, Memory, Note, Source, Statement, Whose, form, now, topic
from qwen_allinone.state.sqlite_erasing import ERASE_EVERY_S, Erasing
from qwen_allinone.state.sqlite_file import BUSY_S, SqliteFile, has_table

_SIZE = f"length(CAST({{0}}.text AS BLOB)) + {AROUND_BYTES}"
_MEMORY_SIZE = f"{_SIZE} + coalesce(length({{0}}.vector), 0)"


def _counted(table: str, size: str, *updates: str) -> list[str]:
    """Triggers that keep the sum of what each owner's rows take; nobody has a share where no keys are asked for."""

    def trigger(event: str, row: str, sign: str) -> str:
        return (
            f"CREATE TRIGGER {table}_{event.split()[0].lower()}_{row} AFTER {event} ON {table} WHEN {row}.owner <> ''"
            f" BEGIN INSERT INTO memory_shares VALUES ({row}.owner, {sign}({size.format(row)}))"
            " ON CONFLICT (owner) DO UPDATE SET bytes = bytes + excluded.bytes; END"
        )

    events = [("INSERT", "new", ""), ("DELETE", "old", "-")]
    for column in updates:
        events += [(f"UPDATE OF {column}", "old", "-"), (f"UPDATE OF {column}", "new", "")]
    return [trigger(*event) for event in events]


_TABLES = (
    """
    CREATE TABLE memories (
        id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, user TEXT NOT NULL, text TEXT NOT NULL, form BLOB NOT NULL,
        topic TEXT, source TEXT NOT NULL, mood TEXT, at REAL NOT NULL, expires REAL NOT NULL, replaced REAL,
        model TEXT NOT NULL DEFAULT '', vector BLOB, UNIQUE (owner, user, form)
    )
    """,
    "CREATE INDEX memories_by_expiry ON memories (expires)",
    "CREATE INDEX memories_by_model ON memories (model)",
    """
    CREATE TABLE memory_notes (
        id INTEGER PRIMARY KEY AUTOINCREMENT, owner TEXT NOT NULL, user TEXT NOT NULL, text TEXT NOT NULL, mood TEXT,
        at REAL NOT NULL, due REAL NOT NULL, tries INTEGER NOT NULL DEFAULT 0
    )
    """,
    "CREATE INDEX memory_notes_by_user ON memory_notes (owner, user)",
    "CREATE INDEX memory_notes_by_due ON memory_notes (due)",
    "CREATE TABLE memory_shares (owner TEXT PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID",
    *_counted("memories", _MEMORY_SIZE, "vector"),
    *_counted("memory_notes", _SIZE),
)
_ERASING = Erasing("memory_erasing", "memories")
_COLUMNS = "id, text, source, mood, at, expires, replaced"
# Removed at a time whenever something is kept.
_SWEEP = 8


class SqliteMemories(SqliteFile):
    """A `MemoryStore`. A user has `most` statements and as many notes: the oldest make room, replaced ones first."""

    what = "memories"
    refused = "requests with a user, and /v1/memory,"
    unavailable = MemoryUnavailable

    def __init__(
        self,
        file: Path,
        *,
        ttl_s: float,
        most: int,
        owner_mb: int = 100,
        max_mb: int = 1000,
        busy_s: float = BUSY_S,
        erase_every_s: float = ERASE_EVERY_S,
    ) -> None:
        super().__init__(file, max_mb=max_mb, busy_s=busy_s)
        self._ttl_s = ttl_s
        self._most = most
        self._owner_mb = owner_mb
        self._erase_every_s = erase_every_s

    def check_room(self, whose: Whose) -> None:
        with self._connection() as db:
            self._check_room(db, whose)

    def add(self, whose: Whose, text: str) -> Memory:
        self._sweep()
        with self._writing() as db:
            self._check_room(db, whose)
            return self._keep(db, whose, text, "hand", None, now())

    def all(self, whose: Whose) -> list[Memory]:
        with self._connection() as db:
            rows = db.execute(
                f"SELECT {_COLUMNS} FROM memories WHERE owner = ? AND user = ? AND expires > ?"
                " ORDER BY at DESC, rowid DESC",
                (*_key(whose), now()),
            )
            return [Memory(*row) for row in rows]

    def held(self, whose: Whose, model: str) -> Held:
        with self._connection() as db:
            rows = db.execute(
                "SELECT id, text, CASE model WHEN ? THEN vector END FROM memories WHERE owner = ? AND user = ?"
                " AND expires > ? AND replaced IS NULL ORDER BY at DESC, rowid DESC",
                (model, *_key(whose), now()),
            ).fetchall()
        vectors = [vector for _, _, vector in rows]
        return Held([Statement(id, text) for id, text, _ in rows], partial(likest, vectors))

    def delete(self, whose: Whose, id: str) -> None:
        with self._writing() as db:
            found = db.execute("DELETE FROM memories WHERE id = ? AND owner = ? AND user = ?", (id, *_key(whose)))
            if not found.rowcount:
                raise MemoryNotFound()
            _ERASING.owe(db)
        self.erase()

    def forget(self, whose: Whose) -> int:
        with self._writing() as db:
            notes = db.execute("DELETE FROM memory_notes WHERE owner = ? AND user = ?", _key(whose)).rowcount
            count = db.execute("DELETE FROM memories WHERE owner = ? AND user = ?", _key(whose)).rowcount
            if notes or count:
                _ERASING.owe(db)
        self.erase()
        return count

    def note(self, whose: Whose, text: str, mood: str | None) -> None:
        at = now()
        with self._writing() as db:
            db.execute(
                "INSERT INTO memory_notes (owner, user, text, mood, at, due) VALUES (?, ?, ?, ?, ?, ?)",
                (*_key(whose), text, mood, at, at),
            )
            db.execute(
                "DELETE FROM memory_notes WHERE id IN (SELECT id FROM memory_notes WHERE owner = ? AND user = ?"
                " ORDER BY id DESC LIMIT -1 OFFSET ?)",
                (*_key(whose), self._most),
            )

    def take(self, hold_s: float) -> Note | None:
        with self._connection() as db:  # most looks find nothing, and should keep nobody from writing
            at = now()
            due = "SELECT id FROM memory_notes WHERE due <= ? ORDER BY due, id LIMIT 1"
            if not db.execute(due, (at,)).fetchone():
                return None
            row = db.execute(
                f"UPDATE memory_notes SET due = ?, tries = tries + 1 WHERE id = ({due})"
                " RETURNING id, owner, user, text, mood, at, tries",
                (at + hold_s, at),
            ).fetchone()
        if row is None:  # another was faster
            return None
        id, owner, user, *rest = row
        return Note(id, Whose(owner or None, user), *rest)

    def settle(self, note: Note, texts: Sequence[str]) -> None:
        self._sweep()
        with self._writing() as db:
            if db.execute("DELETE FROM memory_notes WHERE id = ?", (note.id,)).rowcount:
                for text in texts:
                    self._keep(db, note.whose, text, "chat", note.mood, note.at)

    def put_back(self, note: Note, wait_s: float, *, tried: bool) -> None:
        with self._writing() as db:
            tries = note.tries - (not tried)
            db.execute("UPDATE memory_notes SET due = ?, tries = ? WHERE id = ?", (now() + wait_s, tries, note.id))

    def unread(self, model: str, most: int) -> list[tuple[Whose, Memory]]:
        with self._connection() as db:
            rows = db.execute(
                f"SELECT owner, user, {_COLUMNS} FROM memories WHERE (model < ? OR model > ?)"
                " AND replaced IS NULL LIMIT ?",
                (model, model, most),
            )
            return [(Whose(owner or None, user), Memory(*rest)) for owner, user, *rest in rows]

    def put_vector(self, whose: Whose, memory: Memory, model: str, vector: bytes) -> None:
        with self._writing() as db:
            db.execute(
                "UPDATE memories SET model = ?, vector = ? WHERE id = ? AND text = ? AND owner = ? AND user = ?",
                (model, vector, memory.id, memory.text, *_key(whose)),
            )

    def tidy(self) -> None:
        self._sweep()
        self.erase()

    def erase(self) -> None:
        with self._connection() as db:
            _ERASING.pay(db, self._erase_every_s, now)

    def _check_room(self, db: sqlite3.Connection, whose: Whose) -> None:
        found = db.execute("SELECT bytes FROM memory_shares WHERE owner = ?", (_key(whose)[0],)).fetchone()
        if found and found[0] >= self._owner_mb * 1_000_000:
            raise MemoryFull(self._owner_mb)

    def _keep(
        self, db: sqlite3.Connection, whose: Whose, text: str, source: Source, mood: str | None, at: float
    ) -> Memory:
        """Keep a statement that was true at `at`. Said again, it is the one there is, as of now."""
        about, whole = topic(text), (*_key(whose), form(text))
        db.execute("DELETE FROM memories WHERE owner = ? AND user = ? AND expires <= ?", (*whole[:2], now()))
        newer = "owner = ? AND user = ? AND topic = ? AND form <> ? AND at > ? AND replaced IS NULL"
        replaced = None
        if about:
            (replaced,) = db.execute(
                f"SELECT min(at) FROM memories WHERE {newer}", (*whole[:2], about, whole[2], at)
            ).fetchone()
            db.execute(
                "UPDATE memories SET replaced = ? WHERE owner = ? AND user = ? AND topic = ? AND form <> ?"
                " AND at <= ? AND replaced IS NULL",
                (at, *whole[:2], about, whole[2], at),
            )
        db.execute(
            "INSERT INTO memories (id, owner, user, text, form, topic, source, mood, at, expires, replaced)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (owner, user, form) DO UPDATE SET"
            " at = excluded.at, expires = excluded.expires, mood = excluded.mood, replaced = excluded.replaced"
            " WHERE excluded.at >= at",
            (secrets.token_hex(8), *_key(whose), text, whole[2], about, source, mood, at, at + self._ttl_s, replaced),
        )
        kept = db.execute(
            f"SELECT {_COLUMNS} FROM memories WHERE owner = ? AND user = ? AND form = ?", whole
        ).fetchone()
        db.execute(
            "DELETE FROM memories WHERE rowid IN (SELECT rowid FROM memories WHERE owner = ? AND user = ?"
            " ORDER BY replaced IS NULL DESC, at DESC, rowid DESC LIMIT -1 OFFSET ?)",
            (*_key(whose), self._most),
        )
        return Memory(*kept)

    def _sweep(self) -> None:
        """Remove some of what has expired, in a step of its own, so that a full file gets room."""
        with self._connection() as db:
            db.execute(
                "DELETE FROM memories WHERE rowid IN"
                " (SELECT rowid FROM memories WHERE expires <= ? ORDER BY expires LIMIT ?)",
                (now(), _SWEEP),
            )

    def _make_tables(self, db: sqlite3.Connection) -> None:
        parts = {"memories": _TABLES, _ERASING.table: _ERASING.makes}
        if not all(has_table(db, name) for name in parts):
            db.execute("BEGIN IMMEDIATE")
            for statements in [statements for name, statements in parts.items() if not has_table(db, name)]:
                for statement in statements:
                    db.execute(statement)
            db.execute("COMMIT")


def _key(whose: Whose) -> tuple[str, str]:
    """As the tables have it: no caller's name is empty."""
    return whose.owner or "", whose.user
