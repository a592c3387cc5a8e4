"""Sessions in PostgreSQL, for workers of several machines.

Whoever works on a session holds its row, so that what one transaction reads and writes of it is one step. Times are by
PostgreSQL's own clock: the machines' clocks need not agree. Turns lie in several tables by their sessions' ids, so that
erasing one writes a small part of them anew and keeps others waiting as little.
"""

from __future__ import annotations

import logging
import threading

from qwen_allinone.errors import OwnerFull, SessionBusy, SessionNotFound, StoreUnavailable
from qwen_allinone.postgres_link import Connection, PostgresLink
from qwen_allinone.state.conversations import AROUND_BYTES, Session, Turn, checked_date, soon
from qwen_allinone.state.lease import Lease, is_dead
from qwen_allinone.state.postgres_tables import ERASE_EVERY_S, NOW, PostgresTables, has_table
from qwen_allinone.state.usage import text_of

log = logging.getLogger(__name__)

_PARTS = tuple(f"qaio_turns_{number}" for number in range(32))
_SCHEMA = """
CREATE TABLE qaio_sessions (
    id text PRIMARY KEY, owner text NOT NULL, created float8 NOT NULL, expires float8 NOT NULL, lease text,
    lease_until float8
);
CREATE INDEX qaio_sessions_by_expiry ON qaio_sessions (expires);
CREATE INDEX qaio_sessions_by_owner ON qaio_sessions (owner, expires);
CREATE TABLE qaio_turns (
    session text NOT NULL, number int NOT NULL, turn text NOT NULL, bytes bigint NOT NULL,
    PRIMARY KEY (session, number)
) PARTITION BY HASH (session);
CREATE TABLE qaio_session_shares (owner text PRIMARY KEY, bytes bigint NOT NULL);
""" + "".join(
    f"CREATE TABLE {part} PARTITION OF qaio_turns FOR VALUES WITH (MODULUS {len(_PARTS)}, REMAINDER {number});\n"
    for number, part in enumerate(_PARTS)
)
# A sample of what stands in it would stay in the planner's statistics after it was deleted.
_NO_SAMPLES = "ALTER TABLE qaio_turns ALTER COLUMN turn SET STATISTICS 0"

_IS_WHOSE = f"id = %(id)s AND owner = %(owner)s AND expires > {NOW}"
_FIND = f"SELECT created, lease, lease_until, {NOW} FROM qaio_sessions WHERE {_IS_WHOSE} FOR UPDATE"
_HOLD = f"""
UPDATE qaio_sessions SET lease = %(lease)s, lease_until = {NOW} + %(seconds)s, expires = {NOW} + %(ttl)s
WHERE id = %(id)s RETURNING expires
"""
# One question, and so one moment, of both tables.
_READ = f"""
SELECT created, expires, turn FROM qaio_sessions LEFT JOIN qaio_turns ON session = id WHERE {_IS_WHOSE} ORDER BY number
"""
_KEEP = f"""
WITH kept AS (INSERT INTO qaio_turns VALUES (%(id)s, %(number)s, %(turn)s, %(bytes)s))
UPDATE qaio_sessions SET expires = {NOW} + %(ttl)s, lease = nullif(lease, %(lease)s) WHERE id = %(id)s
"""
_COUNT_IN = """
INSERT INTO qaio_session_shares AS share VALUES (%s, %s)
ON CONFLICT (owner) DO UPDATE SET bytes = share.bytes + excluded.bytes
"""
_REMOVE = """
WITH gone AS (DELETE FROM qaio_turns WHERE session = ANY(%(ids)s) RETURNING bytes),
     sessions AS (DELETE FROM qaio_sessions WHERE id = ANY(%(ids)s))
UPDATE qaio_session_shares SET bytes = bytes - (SELECT coalesce(sum(bytes), 0) FROM gone) WHERE owner = %(owner)s
"""
# Who holds one of them uses it, and it has not expired.
_EXPIRED = f"SELECT id FROM qaio_sessions WHERE owner = %s AND expires <= {NOW} ORDER BY id LIMIT %s FOR UPDATE"
_WHOSE_EXPIRED = f"SELECT DISTINCT owner FROM qaio_sessions WHERE expires <= {NOW}"
_SWEEP = 100  # removed at a time
_TIDY_EVERY_S = 2.0  # how often it looks whether something has expired or is to be erased


class PostgresStore(PostgresTables):
    """A `Store`. While PostgreSQL is gone, one request every two seconds waits for it; the others are told at once."""

    what = "sessions"
    places = _PARTS

    def __init__(
        self, link: PostgresLink, *, ttl_s: float, owner_mb: int = 100, erase_every_s: float = ERASE_EVERY_S
    ) -> None:
        super().__init__(link, erase_every_s=erase_every_s)
        self._ttl_s = ttl_s
        self._owner_mb = owner_mb
        self._stopped = threading.Event()

    def start(self) -> None:
        """Remove what has expired and erase what was deleted, now and then, in a thread."""
        threading.Thread(target=self._tidy_forever, name="tidying", daemon=True).start()

    def stop(self) -> None:
        """Begin nothing more in the thread."""
        self._stopped.set()

    def create(self, id: str, owner: str | None, lease: Lease) -> None:
        self._check_share(owner)
        with self._asking() as db:
            db.execute(
                f"INSERT INTO qaio_sessions VALUES (%s, %s, {NOW}, {NOW} + %s, %s, {NOW} + %s)",
                (id, text_of(owner), self._ttl_s, lease.token, lease.seconds),
            )

    def begin(self, id: str, owner: str | None, lease: Lease) -> Session:
        self._check_share(owner)
        given = {"id": id, "owner": text_of(owner), "lease": lease.token, "seconds": lease.seconds, "ttl": self._ttl_s}
        with self._asking() as db:
            found = db.execute(_FIND, given).fetchone()
            if found is None:
                raise SessionNotFound()
            created, holder, until, at = found
            # A lease that ends later than any can is of a clock that was set back since.
            if holder and at < until <= at + lease.longest_s and not is_dead(holder):
                raise SessionBusy(retry_after=soon(until - at))
            (expires,) = db.execute(_HOLD, given).fetchone()
            rows = db.execute("SELECT turn FROM qaio_turns WHERE session = %s ORDER BY number", (id,)).fetchall()
            return _session(id, created, expires, [turn for (turn,) in rows])

    def append(self, id: str, turn: Turn, number: int, lease: Lease) -> None:
        document = turn.dump()
        given = {"id": id, "number": number, "turn": document, "lease": lease.token, "ttl": self._ttl_s}
        size = len(document.encode()) + AROUND_BYTES
        with self._asking() as db:
            owner = self._held(db, id)
            if owner is None:
                raise SessionNotFound()
            (count,) = db.execute("SELECT count(*) FROM qaio_turns WHERE session = %s", (id,)).fetchone()
            if count != number:
                raise SessionBusy()
            db.execute(_KEEP, given | {"bytes": size})
            if owner != text_of(None):
                db.execute(_COUNT_IN, (owner, size))

    def release(self, id: str, lease: Lease) -> None:
        with self._asking() as db:
            # First, so that the last question sees a turn that was kept until now.
            if self._held(db, id) is None:
                return
            db.execute("UPDATE qaio_sessions SET lease = NULL WHERE id = %s AND lease = %s", (id, lease.token))
            db.execute(
                "DELETE FROM qaio_sessions WHERE id = %s AND lease IS NULL"
                " AND NOT EXISTS (SELECT FROM qaio_turns WHERE session = id)",
                (id,),
            )

    def read(self, id: str, owner: str | None) -> Session:
        with self._asking() as db:
            rows = db.execute(_READ, {"id": id, "owner": text_of(owner)}).fetchall()
            if not rows:
                raise SessionNotFound()
            created, expires, _ = rows[0]
            return _session(id, created, expires, [turn for *_, turn in rows if turn is not None])

    def delete(self, id: str, owner: str | None) -> None:
        """What is left of it in the files is erased by the next `tidy`."""
        with self._asking() as db:
            if db.execute(_FIND, {"id": id, "owner": text_of(owner)}).fetchone() is None:
                raise SessionNotFound()
            parts = db.execute("SELECT DISTINCT tableoid::regclass::text FROM qaio_turns WHERE session = %s", (id,))
            places = [part.rpartition(".")[2] for (part,) in parts.fetchall()]
            self._remove(db, text_of(owner), [id])
            self._owe(db, places)

    def tidy(self) -> None:
        """Remove what has expired, and erase what was deleted. Raises StoreUnavailable."""
        with self._asking() as db:
            owners = [owner for (owner,) in db.execute(_WHOSE_EXPIRED).fetchall()]
        for owner in owners:
            while self._remove_expired(owner) == _SWEEP:
                pass
        self.erase()

    def _tidy_forever(self) -> None:
        while not self._stopped.wait(_TIDY_EVERY_S):
            try:
                self.tidy()
            except StoreUnavailable:  # the link has said so
                pass
            except Exception:
                log.exception("sessions: unexpected error; tidied later")

    def _check_share(self, owner: str | None) -> None:
        """Raises OwnerFull. Looked at before a turn is computed: those under way may still be kept."""
        if owner is None:
            return
        while self._is_full(owner):
            # Another may have removed them meanwhile.
            if not self._remove_expired(text_of(owner)) and self._is_full(owner):
                raise OwnerFull(self._owner_mb)

    def _is_full(self, owner: str) -> bool:
        with self._asking() as db:
            share = "SELECT bytes FROM qaio_session_shares WHERE owner = %s"
            found = db.execute(share, (text_of(owner),)).fetchone()
            return bool(found and found[0] >= self._owner_mb * 1_000_000)

    def _remove_expired(self, owner: str) -> int:
        """Remove some of an owner's sessions that have expired; returns how many."""
        with self._asking() as db:
            ids = [id for (id,) in db.execute(_EXPIRED, (owner, _SWEEP)).fetchall()]
            if ids:
                self._remove(db, owner, ids)
            return len(ids)

    @staticmethod
    def _held(db: Connection, id: str) -> str | None:
        """Hold the session's row; whose it is, None if there is none."""
        found = db.execute("SELECT owner FROM qaio_sessions WHERE id = %s FOR UPDATE", (id,)).fetchone()
        return found[0] if found else None

    @staticmethod
    def _remove(db: Connection, owner: str, ids: list[str]) -> None:
        """Of sessions whose rows are held."""
        db.execute(_REMOVE, {"owner": owner, "ids": ids})
        db.execute("DELETE FROM qaio_session_shares WHERE owner = %s AND bytes <= 0", (owner,))

    def _make_tables(self, db: Connection) -> None:
        if not has_table(db, "qaio_sessions"):
            db.execute(_SCHEMA)
            db.execute(_NO_SAMPLES)

    def _write_anew(self, db: Connection, place: str) -> None:
        """Not by VACUUM FULL, which takes what an old transaction might still look at along."""
        db.execute(f"LOCK TABLE {place} IN ACCESS EXCLUSIVE MODE")
        db.execute("SET LOCAL statement_timeout = 0")
        db.execute(f"CREATE TEMPORARY TABLE qaio_kept ON COMMIT DROP AS SELECT * FROM {place}")
        db.execute(f"TRUNCATE {place}")
        db.execute(f"INSERT INTO {place} SELECT * FROM qaio_kept")


def _session(id: str, created: float, expires: float, turns: list[str]) -> Session:
    return Session(id, checked_date(created), expires, tuple(map(Turn.load, turns)))
