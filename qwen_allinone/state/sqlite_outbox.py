"""The outbox of alerts, in a SQLite file of its own: rates, pauses, messages and who sends them.

Each thing that is done is one transaction, so whatever is killed, an event is in it once or not at all. A message is
counted as tried before it is sent: where its sender dies, the next one sends it again with the same id.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

from qwen_allinone.errors import OutboxUnavailable
from qwen_allinone.state.conversations import now
from qwen_allinone.state.lease import Lease, is_dead
from qwen_allinone.state.outbox import AlertEvent, Message, MessageState, Outcome
from qwen_allinone.state.sqlite_file import BUSY_S, SqliteFile, has_table

log = logging.getLogger(__name__)

_TABLES = (
    "CREATE TABLE seen (id TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID",
    "CREATE TABLE hits (rule TEXT NOT NULL, at REAL NOT NULL, id TEXT NOT NULL)",
    "CREATE INDEX hits_of ON hits (rule, at)",
    "CREATE TABLE rules (name TEXT PRIMARY KEY, fired REAL NOT NULL, held INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE messages (n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, channel TEXT NOT NULL, rule TEXT NOT NULL,"
    " created REAL NOT NULL, body TEXT NOT NULL, state TEXT NOT NULL, tries INTEGER NOT NULL, due REAL NOT NULL,"
    " error TEXT NOT NULL, changed REAL NOT NULL)",
    "CREATE INDEX messages_due ON messages (channel, state, due)",
    "CREATE TABLE senders (channel TEXT PRIMARY KEY, holder TEXT NOT NULL, until REAL NOT NULL) WITHOUT ROWID",
)
_COLUMNS = "id, channel, rule, created, body, state, tries, due, error"
KEEP_SENT_S = 7 * 86_400.0  # ids of what was told, and of events: one that comes again is known for so long
KEEP_DEAD_S = 30 * 86_400.0
_MOST_MB = 200
_ROOM_EVERY_S = 60.0  # at most: looking through a full file keeps others from writing
# What makes room where nothing is too old: what it is, its table, which rows, and what they are ordered by.
_LEAST_NEEDED = (
    ("ids of events", "seen", "TRUE", "at"),
    ("ids of messages that were sent", "messages", "state = 'sent'", "changed"),
    ("messages that were given up", "messages", "state = 'dead'", "changed"),
)


class SqliteOutbox(SqliteFile):
    """Shared by all workers of this machine, and by the command line."""

    what = "alerts"
    refused = ""
    unavailable = OutboxUnavailable
    setting = "QAIO_ALERTS_OUTBOX"

    def __init__(self, file: Path, *, max_mb: int = _MOST_MB, busy_s: float = BUSY_S) -> None:
        super().__init__(file, max_mb=max_mb, busy_s=busy_s)
        self._made_room = float("-inf")

    @property
    def exists(self) -> bool:
        return self._file.exists()

    def add(self, found: Iterable[AlertEvent]) -> list[tuple[AlertEvent, Outcome]]:
        """Take events in, all or none; those that were here before change nothing. A full file is given room once."""
        events = list(found)
        try:
            return self._added(events)
        except OutboxUnavailable as error:
            is_full = getattr(error.__cause__, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
            if not is_full or time.monotonic() < self._made_room + _ROOM_EVERY_S:
                raise
        self._made_room = time.monotonic()
        self._make_room()
        return self._added(events)

    def _added(self, events: Sequence[AlertEvent]) -> list[tuple[AlertEvent, Outcome]]:
        with self._writing() as db:
            return [(event, self._take_in(db, event)) for event in events]

    def _take_in(self, db: sqlite3.Connection, event: AlertEvent) -> Outcome:
        if db.execute("SELECT 1 FROM seen WHERE id = ?", (event.id,)).fetchone():
            return "known"
        fired, held = db.execute("SELECT fired, held FROM rules WHERE name = ?", (event.rule,)).fetchone() or (None, 0)
        # A time of firing that lies a little ahead is of an event that another worker brought in first, or of the end
        # of what a kill has come again; one that lies far ahead is of a clock that was set back since.
        is_held = fired is not None and abs(event.at - fired) < event.pause_s
        if event.may_come_again or not is_held:
            db.execute("INSERT INTO seen VALUES (?, ?)", (event.id, event.at))
        if is_held:
            db.execute("UPDATE rules SET held = held + 1 WHERE name = ?", (event.rule,))
            return "held"
        if event.count > 1 and not self._rate_is_reached(db, event):
            return "counted"
        db.execute("INSERT OR REPLACE INTO rules VALUES (?, ?, 0)", (event.rule, event.at))
        body = json.dumps(json.loads(event.body) | {"event": event.id, "at": event.at, "held_back": held})
        for channel in event.channels:
            id = "msg_" + blake2b(f"{event.id}\0{channel}".encode(), digest_size=12).hexdigest()
            db.execute(
                "INSERT OR IGNORE INTO messages (id, channel, rule, created, body, state, tries, due, error, changed)"
                " VALUES (?, ?, ?, ?, ?, 'waiting', 0, ?, '', ?)",
                (id, channel, event.rule, event.at, body, event.at, event.at),
            )
        return "fired"

    def _rate_is_reached(self, db: sqlite3.Connection, event: AlertEvent) -> bool:
        db.execute("DELETE FROM hits WHERE rule = ? AND at <= ?", (event.rule, event.at - event.within_s))
        db.execute("INSERT INTO hits VALUES (?, ?, ?)", (event.rule, event.at, event.id))
        (there,) = db.execute("SELECT count(*) FROM hits WHERE rule = ?", (event.rule,)).fetchone()
        if there < event.count:
            return False
        db.execute("DELETE FROM hits WHERE rule = ?", (event.rule,))
        return True

    def take(self, channel: str, lease: Lease) -> Message | None:
        """The next message of a channel that is due, counted as tried; None: there is none, or another process sends
        for this channel. While `lease` lasts nobody else does."""
        at = now()
        due = "channel = ? AND state = 'waiting' AND due <= ?"
        with self._connection() as db:  # most looks find nothing, and should keep nobody from writing
            if not db.execute(f"SELECT 1 FROM messages WHERE {due}", (channel, at)).fetchone():
                return None
            if not self._may_send(db, channel, lease, at):
                return None
        with self._writing() as db:
            if not self._may_send(db, channel, lease, at):
                return None
            db.execute("INSERT OR REPLACE INTO senders VALUES (?, ?, ?)", (channel, lease.token, at + lease.seconds))
            row = db.execute(
                f"UPDATE messages SET tries = tries + 1, changed = ? WHERE n = (SELECT n FROM messages WHERE {due}"
                f" ORDER BY due, n LIMIT 1) RETURNING {_COLUMNS}",
                (at, channel, at),
            ).fetchone()
        return Message(*row) if row else None

    def _may_send(self, db: sqlite3.Connection, channel: str, lease: Lease, at: float) -> bool:
        held = db.execute("SELECT holder, until FROM senders WHERE channel = ?", (channel,)).fetchone()
        if held is None or held[0] == lease.token:
            return True
        # A hold that ends later than any can is of a clock that was set back since.
        return not at < held[1] <= at + lease.longest_s or is_dead(held[0])

    def let_go(self, lease: Lease) -> None:
        """Let others send."""
        with self._writing() as db:
            db.execute("DELETE FROM senders WHERE holder = ?", (lease.token,))

    def sent(self, message: Message) -> None:
        """It was told: what it said is forgotten, its id is not."""
        with self._writing() as db:
            db.execute(
                "UPDATE messages SET state = 'sent', body = '', error = '', changed = ? WHERE id = ?",
                (now(), message.id),
            )

    def failed(self, message: Message, error: str, *, again_in_s: float | None) -> None:
        """It was not; None: it is given up, and kept for people to look at."""
        with self._writing() as db:
            db.execute(
                "UPDATE messages SET state = ?, error = ?, due = ?, changed = ? WHERE id = ? AND state = 'waiting'",
                (
                    "dead" if again_in_s is None else "waiting",
                    error[:300],
                    now() + (again_in_s or 0.0),
                    now(),
                    message.id,
                ),
            )

    def messages(self, state: MessageState, most: int) -> list[Message]:
        """The oldest first."""
        with self._connection() as db:
            rows = db.execute(
                f"SELECT {_COLUMNS} FROM messages WHERE state = ? ORDER BY n LIMIT ?", (state, most)
            ).fetchall()
        return [Message(*row) for row in rows]

    def counts(self) -> Mapping[MessageState, int]:
        """How many messages there are of each state."""
        with self._connection() as db:
            found = db.execute("SELECT state, count(*) FROM messages GROUP BY state").fetchall()
        counts: dict[MessageState, int] = {"waiting": 0, "dead": 0, "sent": 0}
        return counts | dict(found)

    def retry(self, ids: Sequence[str] | None) -> int:
        """Make messages due now, those that were given up too; None: all. Returns how many."""
        at = now()
        with self._writing() as db:
            if ids is None:
                return db.execute(
                    "UPDATE messages SET state = 'waiting', created = ?, due = ?, changed = ? WHERE state != 'sent'",
                    (at, at, at),
                ).rowcount
            return sum(
                db.execute(
                    "UPDATE messages SET state = 'waiting', created = ?, due = ?, changed = ?"
                    " WHERE state != 'sent' AND id = ?",
                    (at, at, at, id),
                ).rowcount
                for id in ids
            )

    def sweep(self) -> None:
        """Forget what is old."""
        with self._writing() as db:
            _forget_old(db)

    def _make_room(self) -> None:
        """Forget what is old; if that is not enough, the older half of the ids by which one is known that comes again;
        if there are none, of what was given up. What waits to be sent stays."""
        with self._writing() as db:
            _forget_old(db)
            for what, table, of, when in _LEAST_NEEDED:
                if _has_room(db):
                    return
                older = f"{of} AND {when} <= (SELECT avg({when}) FROM {table} WHERE {of})"
                if gone := db.execute(f"DELETE FROM {table} WHERE {older}").rowcount:
                    log.warning("alerts: %s: full: the oldest %d %s are forgotten", self._file, gone, what)

    def _complain(self, error: Exception) -> None:
        if str(error) != self._complaint:  # no request is refused for it, as others are
            log.error("alerts: %s: %s; alerts wait until that is mended (%s)", self._file, error, self.setting)
            self._complaint = str(error)

    def _make_tables(self, db: sqlite3.Connection) -> None:
        if not has_table(db, "senders"):
            db.execute("BEGIN IMMEDIATE")
            if not has_table(db, "senders"):
                for table in _TABLES:
                    db.execute(table)
            db.execute("COMMIT")


def _forget_old(db: sqlite3.Connection) -> None:
    at = now()
    db.execute("DELETE FROM seen WHERE at < ?", (at - KEEP_SENT_S,))
    db.execute("DELETE FROM hits WHERE at < ?", (at - KEEP_SENT_S,))
    db.execute("DELETE FROM messages WHERE state = 'sent' AND changed < ?", (at - KEEP_SENT_S,))
    db.execute("DELETE FROM messages WHERE state = 'dead' AND changed < ?", (at - KEEP_DEAD_S,))


def _has_room(db: sqlite3.Connection) -> bool:
    """Whether a tenth of what the file may hold is free."""
    most, there, free = (
        db.execute(f"PRAGMA {what}").fetchone()[0] for what in ("max_page_count", "page_count", "freelist_count")
    )
    return bool(10 * (most - there + free) >= most)
