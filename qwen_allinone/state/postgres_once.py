"""Answers to requests with a key of their client's, in PostgreSQL, for workers of several machines.

Times are by PostgreSQL's own clock.
"""

from __future__ import annotations

from qwen_allinone.errors import OnceBusy, OnceMismatch, OnceUnavailable
from qwen_allinone.postgres_link import Connection, PostgresLink
from qwen_allinone.state.lease import Lease, is_dead
from qwen_allinone.state.once import AROUND_BYTES
from qwen_allinone.state.postgres_tables import LOCKS, NOW, PostgresTables, has_table
from qwen_allinone.state.usage import text_of

# `ends` is when a row means nothing any more: of a lease, or of an answer.
_SCHEMA = """
CREATE TABLE qaio_once (
    key text PRIMARY KEY, owner text NOT NULL, asked text NOT NULL, lease text, at float8 NOT NULL,
    ends float8 NOT NULL, answer bytea, size bigint NOT NULL
);
CREATE INDEX qaio_once_by_end ON qaio_once (ends);
CREATE INDEX qaio_once_by_owner ON qaio_once (owner, at);
ALTER TABLE qaio_once ALTER COLUMN answer SET STATISTICS 0;
"""
# Waits for who holds the row; one that is there is left as it is.
_FIRST = f"""
INSERT INTO qaio_once VALUES (%(key)s, %(owner)s, %(asked)s, %(lease)s, {NOW}, {NOW} + %(seconds)s, NULL, 0)
ON CONFLICT (key) DO NOTHING
"""
_FIND = f"SELECT asked, lease, ends, answer, {NOW} FROM qaio_once WHERE key = %(key)s FOR UPDATE"
_TAKE = f"""
UPDATE qaio_once SET asked = %(asked)s, lease = %(lease)s, at = {NOW}, ends = {NOW} + %(seconds)s, answer = NULL,
    size = 0 WHERE key = %(key)s
"""
_KEEP = f"""
UPDATE qaio_once SET answer = %s, size = %s, lease = NULL, at = {NOW}, ends = {NOW} + %s WHERE key = %s AND lease = %s
"""
_MAKE_ROOM = """
DELETE FROM qaio_once WHERE key IN (SELECT key FROM (
    SELECT key, sum(size) OVER (ORDER BY at DESC, key) AS so_far FROM qaio_once WHERE owner = %s AND size > 0
) AS kept WHERE so_far > %s)
"""
# Removed at a time, whenever a key is held: more than are made.
_SWEEP = f"""
DELETE FROM qaio_once WHERE key IN (
    SELECT key FROM qaio_once WHERE ends <= {NOW} ORDER BY ends LIMIT 8 FOR UPDATE SKIP LOCKED
)
"""


class PostgresOnce(PostgresTables):
    """An `OnceStore`. While PostgreSQL is gone, one request every two seconds waits for it; the others are told."""

    what = "idempotency keys"
    unavailable = OnceUnavailable

    def __init__(self, link: PostgresLink, *, ttl_s: float, owner_mb: int) -> None:
        super().__init__(link)
        self._ttl_s = ttl_s
        self._owner_bytes = owner_mb * 1_000_000

    def begin(self, key: str, owner: str | None, asked: str, lease: Lease) -> bytes | None:
        given = {
            "key": key, "owner": text_of(owner), "asked": asked, "lease": lease.token, "seconds": lease.seconds
        }  # fmt: skip
        with self._asking() as db:
            db.execute(_SWEEP)
        while True:  # a row may be let go of between two questions
            with self._asking() as db:
                if db.execute(_FIRST, given).rowcount:
                    return None
                if found := db.execute(_FIND, given).fetchone():
                    known, holder, ends, answer, at = found
                    is_kept = answer is not None and ends > at
                    # A lease that ends later than any can is of a clock that was set back since.
                    is_held = answer is None and at < ends <= at + lease.longest_s and not is_dead(holder)
                    if known != asked and (is_held or is_kept):
                        raise OnceMismatch()
                    if is_kept:
                        return bytes(answer)
                    if is_held:
                        raise OnceBusy()
                    db.execute(_TAKE, given)
                    return None

    def keep(self, key: str, owner: str | None, answer: bytes, lease: Lease) -> None:
        size = len(answer) + AROUND_BYTES
        if size > self._owner_bytes:
            self.release(key, owner, lease)
            return
        with self._asking() as db:
            # Two who make room for the same owner at once would each wait for the other.
            db.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, %s))", (f"once {text_of(owner)}", LOCKS))
            db.execute(_KEEP, (answer, size, self._ttl_s, key, lease.token))
            db.execute(_MAKE_ROOM, (text_of(owner), self._owner_bytes))

    def release(self, key: str, owner: str | None, lease: Lease) -> None:
        with self._asking() as db:
            db.execute("DELETE FROM qaio_once WHERE key = %s AND lease = %s", (key, lease.token))

    def _make_tables(self, db: Connection) -> None:
        if not has_table(db, "qaio_once"):
            db.execute(_SCHEMA)
