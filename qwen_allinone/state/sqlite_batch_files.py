"""Files of batches in a SQLite file of this machine: what was uploaded, in parts, and what a batch has answered.

Both are rows and not files of their own: a part or an answer is then whole or not there, after kill -9 and on a full
disk too, an answer is kept in the one transaction that says its line is done, and what is deleted is overwritten.

What was answered is never copied: an output file is the answers of its batch, line by line.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from qwen_allinone.errors import BatchesFull, BatchesUnavailable, BatchFileInUse, BatchFileNotFound, PayloadTooLarge
from qwen_allinone.state.batches import OPEN, Quota, StoredFile
from qwen_allinone.state.conversations import now
from qwen_allinone.state.sqlite_erasing import ERASE_EVERY_S, Erasing
from qwen_allinone.state.sqlite_file import BUSY_S, SqliteFile, has_table
from qwen_allinone.wording import said

PART_BYTES = 65_536
# Written in one transaction: an upload keeps nobody else from writing for long.
_PARTS_AT_ONCE = 32
_ROWS_AT_ONCE = 200
# An upload that has not ended after so long was killed.
_ARRIVES_WITHIN_S = 3600.0
# Smaller than this the file is written anew at once when something is deleted, which takes a second at most.
_SMALL_BYTES = 50_000_000
_ERASES_WITHIN_S = 3600.0
_AROUND_BYTES = 200  # what a line or a file takes beside its text, as owners' shares count it

_TABLES = (
    """
    CREATE TABLE files (
        n INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, purpose TEXT NOT NULL,
        filename TEXT NOT NULL, bytes INTEGER NOT NULL, lines INTEGER NOT NULL, created REAL NOT NULL,
        expires REAL NOT NULL, is_whole INTEGER NOT NULL, batch TEXT, good INTEGER
    )
    """,
    "CREATE INDEX files_by_owner ON files (owner, n)",
    "CREATE INDEX files_by_expiry ON files (expires)",
    "CREATE TABLE parts (file TEXT NOT NULL, number INTEGER NOT NULL, content BLOB NOT NULL, UNIQUE (file, number))",
    """
    CREATE TABLE batches (
        n INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, input_file_id TEXT NOT NULL,
        endpoint TEXT NOT NULL, status TEXT NOT NULL, created REAL NOT NULL, expires REAL NOT NULL, metadata TEXT,
        errors TEXT NOT NULL DEFAULT '[]', output_keep_s REAL NOT NULL, lines INTEGER NOT NULL,
        total INTEGER NOT NULL DEFAULT 0, completed INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0,
        good_bytes INTEGER NOT NULL DEFAULT 0, bad_bytes INTEGER NOT NULL DEFAULT 0,
        output_file_id TEXT, error_file_id TEXT, holder TEXT, until REAL, served REAL NOT NULL DEFAULT 0,
        in_progress_at REAL, finalizing_at REAL, completed_at REAL, failed_at REAL, expired_at REAL,
        cancelling_at REAL, cancelled_at REAL
    )
    """,
    "CREATE INDEX batches_by_owner ON batches (owner, n)",
    "CREATE INDEX batches_open ON batches (status) WHERE status IN ('validating', 'in_progress', 'cancelling')",
    """
    CREATE TABLE lines (
        batch TEXT NOT NULL, number INTEGER NOT NULL, custom_id TEXT NOT NULL, start INTEGER NOT NULL,
        length INTEGER NOT NULL, done INTEGER NOT NULL DEFAULT 0, good INTEGER, tries INTEGER NOT NULL DEFAULT 0,
        holder TEXT, until REAL, answer BLOB, UNIQUE (batch, number)
    )
    """,
    "CREATE INDEX lines_open ON lines (batch, number) WHERE done = 0",
    "CREATE INDEX lines_held ON lines (holder) WHERE holder IS NOT NULL",
    "CREATE INDEX lines_answered ON lines (batch, good, number) WHERE done = 1",
    # Since when it is owed that the file is written anew.
    "CREATE TABLE chores (name TEXT PRIMARY KEY, since REAL NOT NULL) WITHOUT ROWID",
)
_ERASING = Erasing("batch_erasing", "batches")
# Files have their tables since one version or another: by the first one's name, what makes them.
_PARTS: dict[str, tuple[str, ...]] = {
    "chores": _TABLES,
    # What the lines of a batch that were never asked are told: once, so that it ends where there is no room for more.
    "unasked": (
        "CREATE TABLE unasked (batch TEXT PRIMARY KEY, code TEXT NOT NULL, message TEXT NOT NULL) WITHOUT ROWID",
    ),
    _ERASING.table: (*_ERASING.makes, f"UPDATE {_ERASING.table} SET owed = (SELECT count(*) FROM chores)"),
}
# The answer of such a line, with the row of `unasked`: read again it is the same, byte for byte.
UNASKED = (
    "CAST(json_object('id', 'batch_req_' || substr(lines.batch, 7, 16) || printf('%08x', lines.number),"
    " 'custom_id', lines.custom_id, 'response', NULL,"
    " 'error', json_object('code', unasked.code, 'message', unasked.message)) AS BLOB)"
)
_FILE = "id, purpose, filename, bytes, lines, created, expires"
IS_OPEN = f"status IN ({', '.join(map(repr, OPEN))})"


class SqliteBatchFiles(SqliteFile):
    """The files. `owner` is the caller's name, None where no keys are asked for; to others a file does not exist."""

    what = "batches"
    refused = "/v1/files and /v1/batches"
    unavailable = BatchesUnavailable
    setting = "QAIO_BATCHES_FILE"

    def __init__(
        self,
        file: Path,
        *,
        quota: Quota | None = None,
        keep_days: float = 30.0,
        max_mb: int = 4000,
        busy_s: float = BUSY_S,
        erase_every_s: float = ERASE_EVERY_S,
    ) -> None:
        super().__init__(file, max_mb=max_mb, busy_s=busy_s)
        self._erase_every_s = erase_every_s
        self.quota = quota or Quota()
        self._keep_s = keep_days * 86_400

    @property
    def exists(self) -> bool:
        """Whether anything was ever kept: whoever only looks for work need not make the file."""
        return self._file.exists()

    def check_room(self, owner: str | None, size: int) -> None:
        """Raises BatchesFull: this owner may not have `size` bytes more. BatchesUnavailable."""
        with self._connection() as db:
            self._check_bytes(db, owner or "", size)

    def add_file(
        self, owner: str | None, filename: str, size: int, lines: int, blocks: Iterable[bytes], keep_s: float | None
    ) -> StoredFile:
        """Keep an upload of `size` bytes, of which `lines` lines have something in; `blocks` are its bytes.

        Raises:
            PayloadTooLarge: more than any file may have. BatchesFull: more than this owner may have.
            BatchesUnavailable.
        """
        self._check_file(size, lines)
        at, id, who = now(), f"file-{secrets.token_hex(12)}", owner or ""
        with self._writing() as db:
            self._check_bytes(db, who, size)
            db.execute(
                "INSERT INTO files (id, owner, purpose, filename, bytes, lines, created, expires, is_whole)"
                " VALUES (?, ?, 'batch', ?, ?, ?, ?, ?, 0)",
                (id, who, filename, size, lines, at, at + _ARRIVES_WITHIN_S),
            )
        try:
            self._add_parts(id, blocks)
            with self._writing() as db:
                db.execute(
                    "UPDATE files SET is_whole = 1, expires = ? WHERE id = ?",
                    (at + min(keep_s or self._keep_s, self._keep_s), id),
                )
                return _file(db.execute(f"SELECT {_FILE} FROM files WHERE id = ?", (id,)).fetchone())
        except BaseException:
            self._drop_files("id = ?", (id,))
            raise

    def file(self, owner: str | None, id: str) -> StoredFile:
        """Raises BatchFileNotFound, BatchesUnavailable."""
        with self._connection() as db:
            return _file(self._found(db, owner, id, _FILE))

    def files(
        self, owner: str | None, *, purpose: str | None, limit: int, after: str | None, newest_first: bool
    ) -> tuple[list[StoredFile], bool]:
        """Some of the owner's files, in order of their making, and whether there are more.

        Raises:
            BatchFileNotFound: there is none that is called `after`. BatchesUnavailable.
        """
        where, values = "owner = ? AND is_whole AND expires > ?", [owner or "", now()]
        with self._connection() as db:
            if purpose is not None:
                where, values = f"{where} AND purpose = ?", [*values, purpose]
            if after is not None:
                where = f"{where} AND n {'<' if newest_first else '>'} ?"
                values = [*values, self._found(db, owner, after, "n")[0]]
            order = "DESC" if newest_first else "ASC"
            rows = db.execute(
                f"SELECT {_FILE} FROM files WHERE {where} ORDER BY n {order} LIMIT ?", (*values, limit + 1)
            ).fetchall()
        return [_file(row) for row in rows[:limit]], len(rows) > limit

    def content(self, owner: str | None, id: str) -> Iterator[bytes]:
        """The bytes of a file, in blocks; what is deleted meanwhile ends them early.

        Raises:
            BatchFileNotFound, BatchesUnavailable: now, and not at the first block.
        """
        with self._connection() as db:
            batch, good = self._found(db, owner, id, "batch, good")
        return self.blocks(id) if batch is None else self._answers(batch, good)

    def delete_file(self, owner: str | None, id: str) -> None:
        """Forget a file, with the answers it is made of.

        Raises:
            BatchFileNotFound, BatchesUnavailable. BatchFileInUse: a batch that is not over works on it.
        """
        with self._writing(spare=True) as db:
            self._found(db, owner, id, "id")
            using = db.execute(f"SELECT id FROM batches WHERE input_file_id = ? AND {IS_OPEN}", (id,)).fetchone()
            if using:
                raise BatchFileInUse(using[0])
            self._hide(db, id)
        self._drop_files("id = ?", (id,))
        self.erase()

    def blocks(self, id: str) -> Iterator[bytes]:
        """The bytes of an uploaded file."""
        number = 0
        while True:
            with self._connection() as db:
                row = db.execute("SELECT content FROM parts WHERE file = ? AND number = ?", (id, number)).fetchone()
            if row is None:
                return
            yield row[0]
            number += 1

    def erase(self) -> None:
        """Have nothing of what was deleted in the file or its log, see Erasing.

        A large file is left until no batch is open, for an hour at most.
        """
        with self._connection() as db:
            since = db.execute("SELECT since FROM chores WHERE name = 'erase'").fetchone()
            may_wait = since and self._file.stat().st_size > _SMALL_BYTES and now() < since[0] + _ERASES_WITHIN_S
            if may_wait and db.execute(f"SELECT 1 FROM batches WHERE {IS_OPEN}").fetchone():
                return
            _ERASING.pay(db, self._erase_every_s, now)
            if since:
                owed = f"SELECT 1 FROM {_ERASING.table} WHERE done < owed"
                db.execute(f"DELETE FROM chores WHERE name = 'erase' AND NOT EXISTS ({owed})")

    def drop_expired(self) -> None:
        """Forget files whose time is over, but for those that a batch works on, and batches that ended long ago."""
        at = now()
        in_use = f"id IN (SELECT input_file_id FROM batches WHERE {IS_OPEN})"
        self._drop_files(f"expires <= ? AND NOT {in_use}", (at,))
        with self._writing(spare=True) as db:
            old = f"id FROM batches WHERE NOT {IS_OPEN} AND created <= ?"
            if db.execute(f"SELECT {old}", (at - self._keep_s - 86_400,)).fetchone():
                kept = "(SELECT batch FROM files WHERE batch IS NOT NULL)"
                db.execute(
                    f"DELETE FROM batches WHERE id IN (SELECT {old}) AND id NOT IN {kept}",
                    (at - self._keep_s - 86_400,),
                )
                db.execute("DELETE FROM unasked WHERE batch NOT IN (SELECT id FROM batches)")
                self._owe_erasure(db)

    def _add_parts(self, id: str, blocks: Iterable[bytes]) -> None:
        """In transactions of a few parts each."""
        waiting: list[tuple[str, int, bytes]] = []
        for number, part in enumerate(_evenly(blocks, PART_BYTES)):
            waiting.append((id, number, part))
            if len(waiting) == _PARTS_AT_ONCE:
                self._write_parts(waiting)
                waiting = []
        self._write_parts(waiting)

    def _write_parts(self, parts: list[tuple[str, int, bytes]]) -> None:
        with self._writing() as db:
            db.executemany("INSERT INTO parts VALUES (?, ?, ?)", parts)

    def _answers(self, batch: str, good: int) -> Iterator[bytes]:
        last = 0
        while True:
            with self._connection() as db:
                rows = db.execute(
                    f"SELECT number, coalesce(answer, {UNASKED}) FROM lines LEFT JOIN unasked USING (batch)"
                    " WHERE lines.batch = ? AND done = 1 AND good = ? AND number > ? ORDER BY number LIMIT ?",
                    (batch, good, last, _ROWS_AT_ONCE),
                ).fetchall()
            if not rows:
                return
            yield b"".join(answer + b"\n" for _, answer in rows)
            last = rows[-1][0]

    def _drop_files(self, where: str, values: tuple[Any, ...]) -> None:
        """Remove files, and what they are made of, a few rows at a time: nobody else waits long for it."""
        with self._connection() as db:
            found = db.execute(f"SELECT id, batch, good FROM files WHERE {where}", values).fetchall()
        for id, batch, good in found:
            with self._writing(spare=True) as db:
                self._hide(db, id)
            if batch is None:
                self._delete_some("parts", "file = ?", (id,))
            else:
                self._delete_some("lines", "batch = ? AND done = 1 AND good = ?", (batch, good))
            with self._writing(spare=True) as db:
                db.execute("DELETE FROM files WHERE id = ?", (id,))
                self._owe_erasure(db)  # again: what was erased meanwhile had rows of it still

    def _delete_some(self, table: str, where: str, values: tuple[Any, ...]) -> None:
        chosen = f"SELECT rowid FROM {table} WHERE {where} LIMIT {_ROWS_AT_ONCE}"
        while True:
            with self._writing(spare=True) as db:
                if not db.execute(f"DELETE FROM {table} WHERE rowid IN ({chosen})", values).rowcount:
                    return

    def _hide(self, db: sqlite3.Connection, id: str) -> None:
        """From here on the file is gone for everybody; a kill leaves the rest to the next sweep."""
        db.execute("UPDATE files SET is_whole = 0, expires = 0 WHERE id = ?", (id,))
        self._owe_erasure(db)

    def _owe_erasure(self, db: sqlite3.Connection) -> None:
        _ERASING.owe(db)
        db.execute("INSERT OR IGNORE INTO chores VALUES ('erase', ?)", (now(),))

    def _found(self, db: sqlite3.Connection, owner: str | None, id: str, columns: str) -> tuple[Any, ...]:
        row: tuple[Any, ...] | None = db.execute(
            f"SELECT {columns} FROM files WHERE id = ? AND owner = ? AND is_whole AND expires > ?",
            (id, owner or "", now()),
        ).fetchone()
        if row is None:
            raise BatchFileNotFound()
        return row

    def _check_file(self, size: int, lines: int) -> None:
        quota = self.quota
        if size > quota.file_mb * 1_000_000:
            raise PayloadTooLarge(said("upload_bytes", size=size, file_mb=quota.file_mb), param="file")
        if lines > quota.owner_lines:
            raise PayloadTooLarge(said("upload_lines", lines=lines, owner_lines=quota.owner_lines), param="file")

    def _check_bytes(self, db: sqlite3.Connection, owner: str, more: int) -> None:
        """Raises BatchesFull if the owner's files and the answers on their way leave no room for `more` bytes."""
        taken = self._taken(db, owner)
        if taken + more > self.quota.owner_mb * 1_000_000:
            raise BatchesFull(said("uploads_full", kept=taken / 1000000.0, owner_mb=self.quota.owner_mb))

    def _taken(self, db: sqlite3.Connection, owner: str) -> int:
        """The bytes of the owner's files and of the answers that will be files."""
        (kept,) = db.execute(
            f"SELECT coalesce(sum(bytes + {_AROUND_BYTES}), 0) FROM files WHERE owner = ?", (owner,)
        ).fetchone()
        (coming,) = db.execute(
            f"SELECT coalesce(sum(good_bytes + bad_bytes), 0) FROM batches WHERE owner = ? AND {IS_OPEN}", (owner,)
        ).fetchone()
        return int(kept + coming)

    def _make_tables(self, db: sqlite3.Connection) -> None:
        if not all(has_table(db, name) for name in _PARTS):
            db.execute("BEGIN IMMEDIATE")
            for statements in [statements for name, statements in _PARTS.items() if not has_table(db, name)]:
                for statement in statements:
                    db.execute(statement)
            db.execute("COMMIT")


def _file(row: tuple[Any, ...]) -> StoredFile:
    return StoredFile(*row)


def _evenly(blocks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in blocks of `size`, the last one shorter."""
    held = bytearray()
    for block in blocks:
        held += block
        while len(held) >= size:
            yield bytes(held[:size])
            del held[:size]
    if held:
        yield bytes(held)


def dumped(value: object) -> str:
    """As it stands in a column."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
