"""Memories in PostgreSQL, for workers of several machines and for many memories of a user.

Where the extension pgvector is there, vectors are of its type and compared by the database; else they are bytes and
compared here, as of a file. Whoever writes holds a lock of the owner, so that what one transaction reads and writes of
him is one step; and shares another with all who write, which is held alone while the tables are written anew.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from qwen_allinone.errors import MemoryFull, MemoryNotFound, MemoryUnavailable
from qwen_allinone.postgres_link import Connection, PostgresLink
from qwen_allinone.state.likeness import FEW, likest
from qwen_allinone.state.memories import AROUND_BYTES, Held, Memory, Note, Source, Statement, Whose, form, now, topic
from qwen_allinone.state.postgres_tables import ERASE_EVERY_S, LOCKS, PostgresTables, has_table

log = logging.getLogger(__name__)

_WRITING = 2  # the lock that all share who write; one for each owner beside it

_SCHEMA = """
CREATE TABLE qaio_memories (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id text NOT NULL UNIQUE, owner text NOT NULL,
    user_name text NOT NULL, text text NOT NULL, form bytea NOT NULL, topic text, source text NOT NULL, mood text,
    at float8 NOT NULL, expires float8 NOT NULL, replaced float8, model text NOT NULL DEFAULT '', vector bytea,
    bytes bigint NOT NULL, UNIQUE (owner, user_name, form)
);
CREATE INDEX qaio_memories_by_expiry ON qaio_memories (expires);
CREATE INDEX qaio_memories_by_model ON qaio_memories (model) WHERE replaced IS NULL;
CREATE TABLE qaio_memory_notes (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, owner text NOT NULL, user_name text NOT NULL,
    text text NOT NULL, mood text, at float8 NOT NULL, due float8 NOT NULL, tries int NOT NULL DEFAULT 0,
    bytes bigint NOT NULL
);
CREATE INDEX qaio_memory_notes_by_user ON qaio_memory_notes (owner, user_name, number);
CREATE INDEX qaio_memory_notes_by_due ON qaio_memory_notes (due, number);
CREATE TABLE qaio_memory_shares (owner text PRIMARY KEY, bytes bigint NOT NULL);
CREATE FUNCTION qaio_memory_count() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF TG_OP <> 'INSERT' THEN
        UPDATE qaio_memory_shares AS share SET bytes = share.bytes - sums.bytes FROM (
            SELECT owner, sum(bytes) AS bytes FROM gone WHERE owner <> '' GROUP BY owner
        ) AS sums WHERE share.owner = sums.owner;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        INSERT INTO qaio_memory_shares AS share SELECT owner, sum(bytes) FROM come WHERE owner <> '' GROUP BY owner
        ON CONFLICT (owner) DO UPDATE SET bytes = share.bytes + excluded.bytes;
    END IF;
    RETURN NULL;
END $$;
"""
# A sample of what stands in these would stay in the planner's statistics after it was deleted.
_NO_SAMPLES = {"qaio_memories": ("text", "form", "vector", "user_name", "mood", "id"), "qaio_memory_notes": ("text",)}
_TRIGGERS = {
    "qaio_memories": {"INSERT": "NEW TABLE AS come", "DELETE": "OLD TABLE AS gone",
                      "UPDATE": "OLD TABLE AS gone NEW TABLE AS come"},
    "qaio_memory_notes": {"INSERT": "NEW TABLE AS come", "DELETE": "OLD TABLE AS gone"},
}  # fmt: skip

_OF = "owner = %s AND user_name = %s"
_COLUMNS = "id, text, source, mood, at, expires, replaced"
_HOLDS = f"{_OF} AND expires > %s AND replaced IS NULL"
_NEWEST_FIRST = "ORDER BY at DESC, number DESC"
# A row without a direction is like nothing, and not unlike either.
_LIKEST = f"""
WITH known AS MATERIALIZED (
         SELECT id, at, number, vector FROM qaio_memories WHERE {_HOLDS} AND model = %s AND vector IS NOT NULL
     ),
     middle AS (SELECT count(*) AS rows, avg(vector) AS vector FROM known)
SELECT known.id FROM known, middle, (SELECT %s::vector AS vector) AS asked
ORDER BY coalesce(nullif(CASE WHEN middle.rows > {FEW}
    THEN (known.vector - middle.vector) <=> (asked.vector - middle.vector)
    ELSE known.vector <=> asked.vector END, 'NaN'), 1), known.at DESC, known.number DESC
"""
# Removed at a time whenever something is kept.
_SWEEP = 8


class PostgresMemories(PostgresTables):
    """A `MemoryStore`. A user has `most` statements and as many notes: the oldest make room, replaced ones first.

    While PostgreSQL is gone, one request every two seconds waits for it; the others are told at once.
    """

    what = "memories"
    unavailable = MemoryUnavailable
    places = ("memories",)

    def __init__(
        self,
        link: PostgresLink,
        *,
        ttl_s: float,
        most: int,
        owner_mb: int = 100,
        erase_every_s: float = ERASE_EVERY_S,
    ) -> None:
        super().__init__(link, erase_every_s=erase_every_s)
        self._ttl_s = ttl_s
        self._most = most
        self._owner_mb = owner_mb
        self._has_pgvector = False

    def check_room(self, whose: Whose) -> None:
        with self._asking() as db:
            self._check_room(db, whose)

    def add(self, whose: Whose, text: str) -> Memory:
        self._sweep()
        with self._writing(whose) as db:
            self._check_room(db, whose)
            return self._keep(db, whose, text, "hand", None, now())

    def all(self, whose: Whose) -> list[Memory]:
        with self._asking() as db:
            rows = db.execute(
                f"SELECT {_COLUMNS} FROM qaio_memories WHERE {_OF} AND expires > %s ORDER BY at DESC, number DESC",
                (*_key(whose), now()),
            )
            return [Memory(*row) for row in rows]

    def held(self, whose: Whose, model: str) -> Held:
        with self._asking() as db:
            of = (*_key(whose), now())
            if self._has_pgvector:
                rows = db.execute(f"SELECT id, text FROM qaio_memories WHERE {_HOLDS} {_NEWEST_FIRST}", of)
                statements = [Statement(*row) for row in rows]
                places = {statement.id: place for place, statement in enumerate(statements)}
                return Held(statements, partial(self._likest, (*of, model), places))
            rows = db.execute(
                "SELECT id, text, CASE model WHEN %s THEN vector END FROM qaio_memories"
                f" WHERE {_HOLDS} {_NEWEST_FIRST}",
                (model, *of),
            ).fetchall()
            vectors = [kept and bytes(kept) for _, _, kept in rows]
        return Held([Statement(id, text) for id, text, _ in rows], partial(likest, vectors))

    def _likest(self, of: tuple[Any, ...], places: Mapping[str, int], vector: bytes) -> list[int]:
        """As the database finds them, of the statements that were there a moment ago."""
        with self._asking() as db:
            return [places[id] for (id,) in db.execute(_LIKEST, (*of, _written(vector))) if id in places]

    def delete(self, whose: Whose, id: str) -> None:
        with self._writing(whose) as db:
            found = db.execute(f"DELETE FROM qaio_memories WHERE id = %s AND {_OF}", (_plain(id), *_key(whose)))
            if not found.rowcount:
                raise MemoryNotFound()
            self._owe(db, self.places)
        self.erase()

    def forget(self, whose: Whose) -> int:
        with self._writing(whose) as db:
            notes = db.execute(f"DELETE FROM qaio_memory_notes WHERE {_OF}", _key(whose)).rowcount
            count = int(db.execute(f"DELETE FROM qaio_memories WHERE {_OF}", _key(whose)).rowcount)
            if notes or count:
                self._owe(db, self.places)
        self.erase()
        return count

    def note(self, whose: Whose, text: str, mood: str | None) -> None:
        at, said = now(), _plain(text)
        with self._writing(whose) as db:
            db.execute(
                "INSERT INTO qaio_memory_notes (owner, user_name, text, mood, at, due, bytes)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s)",
                (*_key(whose), said, mood, at, at, _size(said)),
            )
            db.execute(
                "DELETE FROM qaio_memory_notes WHERE number IN (SELECT number FROM qaio_memory_notes"
                f" WHERE {_OF} ORDER BY number DESC OFFSET %s)",
                (*_key(whose), self._most),
            )

    def take(self, hold_s: float) -> Note | None:
        at = now()
        with self._asking() as db:
            row = db.execute(
                "UPDATE qaio_memory_notes SET due = %s, tries = tries + 1 WHERE number = (SELECT number"
                " FROM qaio_memory_notes WHERE due <= %s ORDER BY due, number LIMIT 1 FOR UPDATE SKIP LOCKED)"
                " RETURNING number, owner, user_name, text, mood, at, tries",
                (at + hold_s, at),
            ).fetchone()
        if row is None:
            return None
        number, owner, user, *rest = row
        return Note(number, Whose(owner or None, user), *rest)

    def settle(self, note: Note, texts: Sequence[str]) -> None:
        self._sweep()
        with self._writing(note.whose) as db:
            if db.execute("DELETE FROM qaio_memory_notes WHERE number = %s", (note.id,)).rowcount:
                for text in texts:
                    self._keep(db, note.whose, text, "chat", note.mood, note.at)

    def put_back(self, note: Note, wait_s: float, *, tried: bool) -> None:
        with self._asking() as db:
            tries = note.tries - (not tried)
            db.execute(
                "UPDATE qaio_memory_notes SET due = %s, tries = %s WHERE number = %s",
                (now() + wait_s, tries, note.id),
            )

    def unread(self, model: str, most: int) -> list[tuple[Whose, Memory]]:
        with self._asking() as db:
            rows = db.execute(
                f"SELECT owner, user_name, {_COLUMNS} FROM qaio_memories WHERE (model < %s OR model > %s)"
                " AND replaced IS NULL LIMIT %s",
                (model, model, most),
            )
            return [(Whose(owner or None, user), Memory(*rest)) for owner, user, *rest in rows]

    def put_vector(self, whose: Whose, memory: Memory, model: str, vector: bytes) -> None:
        with self._writing(whose) as db:
            kept, of_type = (_written(vector), "%s::vector") if self._has_pgvector else (vector, "%s")
            db.execute(
                f"UPDATE qaio_memories SET model = %s, vector = {of_type}, bytes = %s WHERE id = %s AND text = %s"
                f" AND {_OF}",
                (model, kept, _size(memory.text) + len(vector), memory.id, memory.text, *_key(whose)),
            )

    def tidy(self) -> None:
        self._sweep()
        self.erase()

    def _write_anew(self, db: Connection, place: str) -> None:
        """Not by VACUUM FULL, which takes what an old transaction might still look at along."""
        db.execute("SET LOCAL statement_timeout = 0")
        db.execute("SELECT pg_advisory_xact_lock(%s, %s)", (LOCKS, _WRITING))
        for table in ("qaio_memories", "qaio_memory_notes"):
            # It has to be an expression, or nothing is written.
            db.execute(f"ALTER TABLE {table} ALTER COLUMN text TYPE text USING text || ''")

    def _check_room(self, db: Connection, whose: Whose) -> None:
        found = db.execute("SELECT bytes FROM qaio_memory_shares WHERE owner = %s", (_key(whose)[0],)).fetchone()
        if found and found[0] >= self._owner_mb * 1_000_000:
            raise MemoryFull(self._owner_mb)

    def _keep(self, db: Connection, whose: Whose, text: str, source: Source, mood: str | None, at: float) -> Memory:
        """Keep a statement that was true at `at`. Said again, it is the one there is, as of now."""
        said = _plain(text)
        key, about, shape = _key(whose), topic(said), form(said)
        db.execute(f"DELETE FROM qaio_memories WHERE {_OF} AND expires <= %s", (*key, now()))
        replaced = None
        if about:
            rivals = f"{_OF} AND topic = %s AND form <> %s AND replaced IS NULL"
            newer = db.execute(
                f"SELECT min(at) FROM qaio_memories WHERE {rivals} AND at > %s", (*key, about, shape, at)
            ).fetchone()
            replaced = newer[0]
            db.execute(
                f"UPDATE qaio_memories SET replaced = %s WHERE {rivals} AND at <= %s", (at, *key, about, shape, at)
            )
        db.execute(
            "INSERT INTO qaio_memories AS kept (id, owner, user_name, text, form, topic, source, mood, at, expires,"
            " replaced, bytes) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
            " ON CONFLICT (owner, user_name, form) DO UPDATE SET at = excluded.at, expires = excluded.expires,"
            " mood = excluded.mood, replaced = excluded.replaced WHERE excluded.at >= kept.at",
            (secrets.token_hex(8), *key, said, shape, about, source, mood, at, at + self._ttl_s, replaced, _size(said)),
        )
        kept = db.execute(f"SELECT {_COLUMNS} FROM qaio_memories WHERE {_OF} AND form = %s", (*key, shape)).fetchone()
        db.execute(
            "DELETE FROM qaio_memories WHERE number IN (SELECT number FROM qaio_memories"
            f" WHERE {_OF} ORDER BY replaced IS NULL DESC, at DESC, number DESC OFFSET %s)",
            (*key, self._most),
        )
        return Memory(*kept)

    def _sweep(self) -> None:
        """Remove some of what has expired, owner by owner."""
        with self._asking() as db:
            rows = db.execute(
                "SELECT owner, number FROM qaio_memories WHERE expires <= %s ORDER BY expires LIMIT %s",
                (now(), _SWEEP),
            ).fetchall()
        for owner in {owner for owner, _ in rows}:
            numbers = [number for other, number in rows if other == owner]
            with self._writing(Whose(owner, "")) as db:
                db.execute("DELETE FROM qaio_memories WHERE number = ANY(%s) AND expires <= %s", (numbers, now()))

    @contextmanager
    def _writing(self, whose: Whose) -> Iterator[Connection]:
        """A transaction that is alone with what is the owner's from its first look on."""
        with self._asking() as db:
            db.execute(
                "SELECT pg_advisory_xact_lock_shared(%s, %s), pg_advisory_xact_lock(hashtextextended(%s, %s))",
                (LOCKS, _WRITING, _key(whose)[0], LOCKS),
            )
            yield db

    def _make_tables(self, db: Connection) -> None:
        """If they are not there; and find out whether pgvector is."""
        if not has_table(db, "qaio_memories"):
            db.execute(_SCHEMA)
            for table, events in _TRIGGERS.items():
                for event, rows in events.items():
                    db.execute(
                        f"CREATE TRIGGER {table}_{event.lower()} AFTER {event} ON {table} REFERENCING {rows}"
                        " FOR EACH STATEMENT EXECUTE FUNCTION qaio_memory_count()"
                    )
            for table, columns in _NO_SAMPLES.items():
                for column in columns:
                    db.execute(f"ALTER TABLE {table} ALTER COLUMN {column} SET STATISTICS 0")
        has_extension = self._link.tried(db, "CREATE EXTENSION IF NOT EXISTS vector")
        (kind,) = db.execute(
            "SELECT format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = 'qaio_memories'::regclass"
            " AND attname = 'vector'"
        ).fetchone()
        if has_extension and kind == "bytea":  # new, or the extension came later: the vectors are made anew
            db.execute("UPDATE qaio_memories SET model = '', bytes = bytes - coalesce(octet_length(vector), 0)")
            db.execute("ALTER TABLE qaio_memories DROP COLUMN vector, ADD COLUMN vector vector")
            db.execute("ALTER TABLE qaio_memories ALTER COLUMN vector SET STATISTICS 0")
        elif not has_extension:
            log.warning(
                "memories: pgvector is not there: vectors are compared by this service, not by PostgreSQL;"
                " have an administrator install it and CREATE EXTENSION vector"
            )
        self._has_pgvector = has_extension


def _key(whose: Whose) -> tuple[str, str]:
    """As the tables have it: no caller's name is empty."""
    return whose.owner or "", whose.user


def _plain(text: str) -> str:
    """PostgreSQL keeps every character but one."""
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}")


def _size(text: str) -> int:
    return len(text.encode()) + AROUND_BYTES


def _written(vector: bytes) -> str:
    """As pgvector reads it."""
    values: Any = np.frombuffer(vector, np.float16).astype(np.float32).tolist()
    return f"[{','.join(map(repr, values))}]"
