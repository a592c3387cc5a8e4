"""Usage in the SQLite file of conversations."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from datetime import date, timedelta
from pathlib import Path

from qwen_allinone.errors import UsageUnavailable
from qwen_allinone.state.sqlite_file import BUSY_S, SqliteFile, has_table
from qwen_allinone.state.usage import Counts, UsageLine, Usages, owner_of, text_of

# `owner` is text always, see text_of: a NULL in a key equals no other.
_TABLE = """
CREATE TABLE usage (
    day TEXT NOT NULL, owner TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, times INTEGER NOT NULL,
    failed INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL, PRIMARY KEY (day, owner, kind, name)
) WITHOUT ROWID
"""
_ADD = (
    "INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
    + ", ".join(f"{field} = {field} + excluded.{field}" for field in Counts._fields)
)  # fmt: skip


class SqliteUsage(SqliteFile):
    """A `UsageStore`. Each batch is one transaction, so none is there in part, and one that failed is not there."""

    what = "usage"
    refused = "questions for usage"
    unavailable = UsageUnavailable

    def __init__(self, file: Path, *, days: int, max_mb: int = 1000, busy_s: float = BUSY_S) -> None:
        super().__init__(file, max_mb=max_mb, busy_s=busy_s)
        self._days = days

    def add(self, batch: str, counted: Usages) -> None:
        newest = max(line.day for line in counted)
        with self._writing() as db:
            # First, so that a full file has room again.
            oldest = date.fromisoformat(newest) - timedelta(days=self._days - 1)
            db.execute("DELETE FROM usage WHERE day < ?", (oldest.isoformat(),))
            db.executemany(
                _ADD,
                [(line.day, text_of(line.owner), line.kind, line.name, *counts) for line, counts in counted.items()],
            )

    def read(self, first: str, last: str, owners: Collection[str | None] | None, most: int) -> dict[UsageLine, Counts]:
        within, given = "", list[object]([first, last])
        if owners is not None:
            within = f" AND owner IN ({', '.join('?' * len(owners))})"
            given += map(text_of, owners)
        with self._connection() as db:
            rows = db.execute(
                f"SELECT * FROM usage WHERE day BETWEEN ? AND ?{within} ORDER BY day, owner, kind, name LIMIT ?",
                (*given, most + 1),
            ).fetchall()
        return {UsageLine(day, owner_of(text), kind, name): Counts(*counts) for day, text, kind, name, *counts in rows}

    def _make_tables(self, db: sqlite3.Connection) -> None:
        if not has_table(db, "usage"):
            db.execute("BEGIN IMMEDIATE")
            if not has_table(db, "usage"):
                db.execute(_TABLE)
            db.execute("COMMIT")
