"""Usage in PostgreSQL, for workers of several machines."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date, timedelta

from qwen_allinone.errors import UsageUnavailable
from qwen_allinone.postgres_link import Connection, PostgresLink
from qwen_allinone.state.postgres_tables import LOCKS, NOW, PostgresTables, has_table
from qwen_allinone.state.usage import Counts, UsageLine, Usages, owner_of, text_of

_WRITING = 3  # the lock of who adds: two who add the same lines would each wait for the other
_COLUMNS = ("day", "owner", "kind", "name", *Counts._fields)
_SCHEMA = f"""
CREATE TABLE qaio_usage (
    day text NOT NULL, owner text NOT NULL, kind text NOT NULL, name text NOT NULL,
    {", ".join(f"{field} bigint NOT NULL" for field in Counts._fields)}, PRIMARY KEY (day, owner, kind, name)
);
CREATE TABLE qaio_usage_batches (batch text PRIMARY KEY, at float8 NOT NULL);
CREATE INDEX qaio_usage_batches_by_age ON qaio_usage_batches (at);
"""
_ADD = f"""
INSERT INTO qaio_usage AS kept ({", ".join(_COLUMNS)}) VALUES ({", ".join(["%s"] * len(_COLUMNS))})
ON CONFLICT (day, owner, kind, name) DO UPDATE SET
""" + ", ".join(f"{field} = kept.{field} + excluded.{field}" for field in Counts._fields)
_DAY_S = 86_400.0


class PostgresUsage(PostgresTables):
    """A `UsageStore`. A batch that was taken without PostgreSQL saying so is known again for a day."""

    what = "usage"
    unavailable = UsageUnavailable

    def __init__(self, link: PostgresLink, *, days: int) -> None:
        super().__init__(link)
        self._days = days

    def add(self, batch: str, counted: Usages) -> None:
        newest = max(line.day for line in counted)
        oldest = date.fromisoformat(newest) - timedelta(days=self._days - 1)
        rows = [(line.day, text_of(line.owner), line.kind, line.name, *counts) for line, counts in counted.items()]
        with self._asking() as db:
            db.execute("SELECT pg_advisory_xact_lock(%s, %s)", (LOCKS, _WRITING))
            known = f"INSERT INTO qaio_usage_batches VALUES (%s, {NOW}) ON CONFLICT DO NOTHING"
            if db.execute(known, (batch,)).rowcount:
                db.execute("DELETE FROM qaio_usage WHERE day < %s", (oldest.isoformat(),))
                db.execute(f"DELETE FROM qaio_usage_batches WHERE at < {NOW} - %s", (_DAY_S,))
                with db.cursor() as cursor:
                    cursor.executemany(_ADD, rows)

    def read(self, first: str, last: str, owners: Collection[str | None] | None, most: int) -> dict[UsageLine, Counts]:
        within, given = "", list[object]([first, last])
        if owners is not None:
            within = " AND owner = ANY(%s)"
            given.append([text_of(owner) for owner in owners])
        with self._asking() as db:
            rows = db.execute(
                f"SELECT {', '.join(_COLUMNS)} FROM qaio_usage WHERE day BETWEEN %s AND %s{within}"
                " ORDER BY day, owner, kind, name LIMIT %s",
                (*given, most + 1),
            ).fetchall()
        return {UsageLine(day, owner_of(text), kind, name): Counts(*counts) for day, text, kind, name, *counts in rows}

    def close(self) -> None:
        """The link is everybody's."""

    def _make_tables(self, db: Connection) -> None:
        if not has_table(db, "qaio_usage"):
            db.execute(_SCHEMA)
