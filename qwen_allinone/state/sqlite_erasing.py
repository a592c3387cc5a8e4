"""Nothing of what was deleted stays in a SQLite file: that this is owed stands in the file, and is done now and then.

`secure_delete` overwrites the rows themselves; where SQLite has moved rows to another page, some of what they held
stays in the gap. So the file is written anew, which takes as long as it is large, and as much room again. One worker
does that for all that was deleted before it, and not again for a while; who deletes meanwhile is not kept waiting. What
is owed stands in the file: any worker does it, and after a kill too.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

# Seconds between two times that the file is written anew, or so many times as long as that took, if it was over one:
# whoever deletes again and again takes no more of the file's time than this.
ERASE_EVERY_S = 10.0
# A clock that was set back holds nothing up.
_IS_DUE = "done < owed AND (at > :now OR at + :every * max(1.0, took) <= :now)"


class Erasing:
    """The debt of one file, kept in its table `table`, whose one row counts: of the `owed`, so many are `done`, no byte
    of them is left. `at`: when that was last tried, Unix seconds; `took`: the seconds that it last needed.
    """

    def __init__(self, table: str, what: str) -> None:
        """`what` is what the log calls it."""
        self.table = table
        self._what = what
        self.makes = (
            f"CREATE TABLE {table}"
            " (owed INTEGER NOT NULL, done INTEGER NOT NULL, at REAL NOT NULL, took REAL NOT NULL)",
            f"INSERT INTO {table} VALUES (0, 0, 0, 0)",
        )

    def owe(self, db: sqlite3.Connection) -> None:
        """In the transaction that deletes: what is erased meanwhile does not pay for it."""
        db.execute(f"UPDATE {self.table} SET owed = owed + 1")

    def pay(self, db: sqlite3.Connection, every_s: float, now: Callable[[], float]) -> None:
        """Write the file anew if that is owed, and was not done or tried a moment ago; outside of any transaction."""
        given = {"now": now(), "every": every_s}
        # Most looks find nothing, and should keep nobody from writing.
        if not db.execute(f"SELECT 1 FROM {self.table} WHERE {_IS_DUE}", given).fetchall():
            return
        claim = f"UPDATE {self.table} SET at = :now WHERE {_IS_DUE} RETURNING owed"
        try:
            for (owed,) in db.execute(claim, given).fetchall():  # none: another was faster
                self._write_anew(db, owed, now)
        except sqlite3.OperationalError as error:  # somebody reads or writes, or the disk is full
            log.info("%s: what was deleted will be erased later: %s", self._what, error)

    def _write_anew(self, db: sqlite3.Connection, owed: int, now: Callable[[], float]) -> None:
        """Have nothing of the first `owed` that were deleted in the file or its log, unless something holds it up."""
        began = time.monotonic()
        db.execute("VACUUM")
        busy, *_ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if not busy:
            done = {"owed": owed, "now": now(), "took": time.monotonic() - began}
            db.execute(f"UPDATE {self.table} SET done = max(done, :owed), at = :now, took = :took", done)
