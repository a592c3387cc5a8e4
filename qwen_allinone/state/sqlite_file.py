"""A SQLite file that all workers of this machine share: its connections, and what goes for every table in it.

Write-ahead log: readers and the one writer do not wait for each other. `synchronous=FULL`: what was answered is on the
disk, so neither kill -9 nor a loss of power takes it. No connection is shared by two threads at a time, none outlives a
fault or a fork.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from qwen_allinone.errors import QaioError, StoreUnavailable

log = logging.getLogger(__name__)

BUSY_S = 2.0  # most that one request waits for another writer
_LEFT_WAL_BYTES = 16_000_000
# What deletes or ends something may take beyond `max_mb`: a full file can always be emptied.
SPARE_BYTES = 16_000_000
# Held while a new file is made, whoever in this process makes it.
_MAKING = threading.Lock()


class _Connection(sqlite3.Connection):
    """One that knows the process and the file it belongs to, and the most pages that it may have made of it."""

    home: tuple[int, ...] = ()
    page_bytes = 4096
    most_pages = 0


class SqliteFile:
    """What keeps its tables in `file`; several may share one. The file and its folder are made when first needed.

    `what` is what the log calls it, `refused` what is answered 503 while the file cannot be used, `setting` says where
    it is.
    """

    what: str
    refused: str
    unavailable: type[StoreUnavailable] = StoreUnavailable
    setting = "QAIO_SESSIONS_FILE"

    def __init__(self, file: Path, *, max_mb: int = 1000, busy_s: float = BUSY_S) -> None:
        self._file = file.absolute()
        self._max_mb = max_mb
        self._busy_s = busy_s
        self._lock = threading.Lock()
        self._idle: list[_Connection] = []
        self._inherited: list[_Connection] = []
        self._complaint = ""

    def problem(self) -> str | None:
        """Why the file cannot be used, as far as that shows without making it."""
        folder = self._file.parent
        try:
            while not folder.exists() and folder != folder.parent:
                folder = folder.parent
            if not os.access(folder, os.W_OK | os.X_OK) or not folder.is_dir():
                return f"the folder {folder} is not writable"
            if self._file.exists() and not (self._file.is_file() and os.access(self._file, os.R_OK | os.W_OK)):
                return f"{self._file} is no file that can be read and written"
        except OSError as error:  # a folder that may not be looked into
            return f"{self._file}: {error.strerror}"
        return None

    def close(self) -> None:
        """Close the connections that nobody uses."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _make_tables(self, db: sqlite3.Connection) -> None:
        """If they are not there. Of a new connection, outside of any transaction."""
        raise NotImplementedError

    @contextmanager
    def _writing(self, *, spare: bool = False) -> Iterator[sqlite3.Connection]:
        """One transaction that is alone from its first look on.

        `spare`: it makes room or ends something, and may take SPARE_BYTES more than the file may have.
        """
        with self._connection() as db:
            self._limit(db, SPARE_BYTES if spare else 0)
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
                self._recover()
            except BaseException:
                if db.in_transaction:  # a full disk has ended it already
                    with suppress(sqlite3.Error):
                        db.execute("ROLLBACK")
                raise

    @contextmanager
    def _connection(self) -> Iterator[_Connection]:
        """A connection for one operation; whatever goes wrong with it is StoreUnavailable."""
        connection = None
        try:
            connection = self._take() or self._open()
            yield connection
        except QaioError:
            self._give_back(connection)
            raise
        except (sqlite3.Error, OSError, ValueError, OverflowError) as error:  # ValueError: what was stored is not ours
            if connection is not None:
                connection.close()
            self._complain(error)
            raise self.unavailable() from error
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        else:
            self._give_back(connection)

    def _take(self) -> _Connection | None:
        """An idle connection to the file as it is now, if there is one."""
        with self._lock:
            home = self._home()
            while self._idle:
                connection = self._idle.pop()
                if connection.home == home:
                    return connection
                if connection.home[0] == home[0]:  # the file has been exchanged
                    connection.close()
                else:  # forked: closing it here would take the parent's locks
                    self._inherited.append(connection)
            return None

    def _give_back(self, connection: _Connection | None) -> None:
        if connection is not None:
            with self._lock:
                self._idle.append(connection)

    def _home(self) -> tuple[int, ...]:
        """This process and the file as it is now."""
        try:
            status = self._file.stat()
        except FileNotFoundError:
            return (os.getpid(),)
        return os.getpid(), status.st_dev, status.st_ino

    def _open(self) -> _Connection:
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._make_file()
        home = self._home()
        connection = sqlite3.connect(
            self._file, timeout=self._busy_s, isolation_level=None, check_same_thread=False, factory=_Connection
        )
        connection.home = home
        try:
            self._set_up(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _make_file(self) -> None:
        """If it is not there, an empty one for its owner alone: it holds what people wrote. SQLite gives its other two
        the same mode.

        Closing a file takes the locks that this process has on it, SQLite's too. So only a new one is opened here, and
        closed before any connection to it can be made.
        """
        with _MAKING, suppress(FileExistsError):
            os.close(os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    def _set_up(self, db: _Connection) -> None:
        _use_wal(db, self._busy_s)
        (db.page_bytes,) = db.execute("PRAGMA page_size").fetchone()
        for pragma in (
            "synchronous = FULL",
            "foreign_keys = ON",
            "secure_delete = ON",  # what is deleted is overwritten
            f"journal_size_limit = {_LEFT_WAL_BYTES}",
        ):
            db.execute(f"PRAGMA {pragma}")
        self._make_tables(db)
        # After the tables: a file that is full already must still be read, and emptied.
        self._limit(db, 0)

    def _limit(self, db: _Connection, spare_bytes: int) -> None:
        """Have it make no larger file than `max_mb` and so much more; one that is larger grows no further."""
        pages = (self._max_mb * 1_000_000 + spare_bytes) // db.page_bytes
        if db.most_pages != pages:  # also where it could not be had before: the file was larger then
            (db.most_pages,) = db.execute(f"PRAGMA max_page_count = {pages}").fetchone()

    def _complain(self, error: Exception) -> None:
        if str(error) != self._complaint:
            log.error(
                "%s: %s: %s; %s are answered 503 until that is mended (%s)",
                self.what, self._file, error, self.refused, self.setting,
            )  # fmt: skip
            self._complaint = str(error)

    def _recover(self) -> None:
        if self._complaint:
            log.info("%s: %s: usable again", self.what, self._file)
            self._complaint = ""


def has_table(db: sqlite3.Connection, name: str) -> bool:
    return db.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (name,)).fetchone() is not None


def _use_wal(db: sqlite3.Connection, busy_s: float) -> None:
    """Of two processes that switch a new file at the same time, SQLite tells one at once that it is locked."""
    ends = time.monotonic() + busy_s
    while True:
        try:
            with closing(db.execute("PRAGMA journal_mode = WAL")) as mode:
                if mode.fetchone()[0] == "wal":
                    return
            raise sqlite3.DatabaseError("no write-ahead log on this file system; use a local disk")
        except sqlite3.OperationalError:
            if time.monotonic() >= ends:
                raise
            time.sleep(0.02)
