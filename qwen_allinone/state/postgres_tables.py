"""What goes for all that is kept in PostgreSQL: tables made once, locks, and that what was deleted leaves the files.

A deleted row stays in its table's file until its room is used again. So the table is written anew, to another file.
That this is owed stands in a table: any worker does it, and after a kill too; one for all that was deleted before, and
not again for a while.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from qwen_allinone.away import Away
from qwen_allinone.errors import StoreUnavailable
from qwen_allinone.postgres_link import Connection, PostgresLink
from qwen_allinone.state.conversations import now

log = logging.getLogger(__name__)

# Advisory locks of ours, in a class of their own: the tables' making, and what each store names.
LOCKS = 0x7161696F
_MAKING = 1
# Unix seconds by PostgreSQL's own clock: machines' clocks need not agree.
NOW = "extract(epoch FROM statement_timestamp())::float8"
# Seconds between two times that a table is written anew, or so many times as long as that took, if over one.
ERASE_EVERY_S = 10.0

# Of the `owed` deletions in a place, of so many that are `done` no byte is left. `at`: when that was last tried, Unix
# seconds; `took`: the seconds that it last needed.
_DEBTS = """
CREATE TABLE qaio_erasing (
    place text PRIMARY KEY, owed bigint NOT NULL, done bigint NOT NULL, at float8 NOT NULL, took float8 NOT NULL
)
"""
# A clock that was set back holds nothing up.
_IS_DUE = "done < owed AND (at > %(now)s OR at + %(every)s * greatest(1.0, took) <= %(now)s)"


class PostgresTables:
    """What keeps its tables in PostgreSQL. All that a process keeps there shares one `link`.

    `what` is what the log calls it. `places`: what of it is written anew by itself when something was deleted.
    """

    what: str
    unavailable: type[StoreUnavailable] = StoreUnavailable
    places: Collection[str] = ()

    def __init__(self, link: PostgresLink, *, erase_every_s: float = ERASE_EVERY_S) -> None:
        self._link = link
        self._erase_every_s = erase_every_s

    def erase(self) -> None:
        """Have no byte left of what was deleted, as far as that is due."""
        given = {"now": now(), "every": self._erase_every_s, "places": list(self.places)}
        with self._asking() as db:
            # Most looks find nothing, and should keep nobody from writing.
            due = db.execute(f"SELECT place FROM qaio_erasing WHERE place = ANY(%(places)s) AND {_IS_DUE}", given)
            places = [place for (place,) in due.fetchall()]
        for place in places:
            with self._asking() as db:
                claim = f"UPDATE qaio_erasing SET at = %(now)s WHERE place = %(place)s AND {_IS_DUE}"
                if not db.execute(claim, given | {"now": now(), "place": place}).rowcount:  # another was faster
                    continue
            try:
                with self._link.asking(self._set_up, self.what, patiently=True) as db:
                    self._pay(db, place)
            except Away:  # somebody reads or writes for long, or the disk is full
                log.info("%s: what was deleted will be erased later", self.what)

    def _pay(self, db: Connection, place: str) -> None:
        began = time.monotonic()
        self._write_anew(db, place)
        done = "UPDATE qaio_erasing SET done = owed, at = %s, took = %s WHERE place = %s"
        db.execute(done, (now(), time.monotonic() - began, place))

    def _owe(self, db: Connection, places: Collection[str]) -> None:
        """In the transaction that deletes, and last in it: what is erased meanwhile does not pay for it."""
        db.execute("UPDATE qaio_erasing SET owed = owed + 1 WHERE place = ANY(%s)", (list(places),))

    def _make_tables(self, db: Connection) -> None:
        """If they are not there; nobody else makes any meanwhile."""
        raise NotImplementedError

    def _write_anew(self, db: Connection, place: str) -> None:
        """Have nothing in the files of `place` but what is kept, from the first look on with nobody else at it; as long
        as that takes."""
        raise NotImplementedError

    @contextmanager
    def _asking(self) -> Iterator[Connection]:
        try:
            with self._link.asking(self._set_up, self.what) as db:
                yield db
        except Away as error:
            raise self.unavailable() from error

    def _set_up(self, db: Connection) -> None:
        db.execute("SELECT pg_advisory_xact_lock(%s, %s)", (LOCKS, _MAKING))
        if self.places:
            self._make_debts(db)
        self._make_tables(db)

    def _make_debts(self, db: Connection) -> None:
        """Asks first: a user who may not make tables may still use those that are there."""
        if not has_table(db, "qaio_erasing"):
            db.execute(_DEBTS)
        known = {place for (place,) in db.execute("SELECT place FROM qaio_erasing").fetchall()}
        for place in sorted(set(self.places) - known):
            db.execute("INSERT INTO qaio_erasing VALUES (%s, 0, 0, 0, 0)", (place,))


def has_table(db: Connection, name: str) -> bool:
    return db.execute("SELECT to_regclass(%s)", (name,)).fetchone()[0] is not None
