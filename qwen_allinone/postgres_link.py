"""A PostgreSQL that may be away: asked with a short timeout, given up at once, tried again every two seconds.

psycopg is asked for only where this is used: it is in requirements-postgres.txt, not among what the service needs.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from qwen_allinone.away import Away, Reach
from qwen_allinone.errors import QaioError, StartupError
from qwen_allinone.wording import said

try:
    import psycopg
except ImportError:
    psycopg = None

log = logging.getLogger(__name__)

TIMEOUT_S = 2.0  # most that one question waits for an answer or for another who writes
# A connection that nobody used for so long may have been cut off by something in between.
_IDLE_S = 60.0
_MOST_IDLE = 8
_APPLICATION = "qwen-allinone"

Connection = Any  # psycopg.Connection, where that is installed


class PostgresLink:
    """One use of a PostgreSQL: its connections, each for one thread at a time and none for two processes.

    Raises StartupError if psycopg is absent.
    """

    def __init__(
        self, url: str, *, use: str, without: str, set_up: Callable[[Connection], None], timeout_s: float = TIMEOUT_S
    ) -> None:
        """`use` begins the log lines, `without` says what holds while it is away. `set_up` makes what tables need, of
        the first connection of a process, in a transaction of its own."""
        if psycopg is None:
            raise StartupError(said("needs_psycopg"))
        self._url = url
        self._use, self._without = use, without
        self._set_up = set_up
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._idle: list[tuple[int, float, Connection]] = []
        self._inherited: list[Connection] = []  # of the process that forked this one: not ours to close
        self._is_set_up = False
        self._complaint = ""
        self._reach = Reach()

    @contextmanager
    def asking(self) -> Iterator[Connection]:
        """A connection for one transaction, which ends with the context; whatever goes wrong with it is Away.

        A PostgreSQL that answers that it will not (full, read-only, somebody else holds a lock) is asked again by the
        next; one that does not answer is left alone for a while.
        """
        self._reach.check()
        connection = None
        try:
            connection = self._take() or self._open()
            with connection.transaction():
                yield connection
        except QaioError:
            self._give_back(connection)
            raise
        except (psycopg.Error, OSError, ValueError, TypeError) as error:
            if connection is not None and not connection.closed and not connection.broken:
                # Tables that are gone or have changed under us: the next connection looks at them anew.
                if not isinstance(error, psycopg.Error) or str(error.sqlstate).startswith("42"):
                    self._is_set_up = False
                    _close(connection)
                else:
                    self._give_back(connection)
                self._complain(error)
            else:
                _close(connection)
                self._leave(error)
            raise Away from None
        except BaseException:
            _close(connection)
            raise
        else:
            self._give_back(connection)
            self._join()

    def tried(self, connection: Connection, statement: str) -> bool:
        """Whether PostgreSQL does it. If not, the transaction goes on without it."""
        try:
            with connection.transaction():
                connection.execute(statement)
        except psycopg.Error as error:
            if connection.broken:
                raise
            log.debug("%s: refused (%s): %s", self._use, _kind(error), statement)
            return False
        return True

    def close(self) -> None:
        """Close the connections that nobody uses."""
        with self._lock:
            idle, self._idle = self._idle, []
        for process, _, connection in idle:
            if process == os.getpid():
                _close(connection)

    def _open(self) -> Connection:
        wait_ms = int(self._timeout_s * 1000)
        connection = psycopg.connect(
            self._url,
            autocommit=True,
            connect_timeout=max(2, int(self._timeout_s)),
            application_name=_APPLICATION,
            options=f"-c statement_timeout={wait_ms} -c lock_timeout={wait_ms} -c client_encoding=UTF8"
            " -c default_transaction_isolation=read\\ committed",
            tcp_user_timeout=wait_ms * 2,
            prepare_threshold=None,  # a pooler in between may give each transaction another connection
        )
        try:
            if not self._is_set_up:
                with connection.transaction():
                    self._set_up(connection)
                self._is_set_up = True
        except BaseException:
            _close(connection)
            raise
        return connection

    def _take(self) -> Connection | None:
        with self._lock:
            while self._idle:
                process, since, connection = self._idle.pop()
                if process != os.getpid():
                    self._inherited.append(connection)
                elif connection.closed or time.monotonic() - since > _IDLE_S:
                    _close(connection)
                else:
                    return connection
            return None

    def _give_back(self, connection: Connection | None) -> None:
        if connection is None:
            return
        with self._lock:
            if len(self._idle) < _MOST_IDLE and not connection.closed:
                self._idle.append((os.getpid(), time.monotonic(), connection))
                return
        _close(connection)

    def _leave(self, error: Exception) -> None:
        was_there = self._reach.lost()
        self.close()
        if was_there:
            log.warning("%s: PostgreSQL does not answer (%s); %s", self._use, _kind(error), self._without)

    def _complain(self, error: Exception) -> None:
        kind = _kind(error)
        with self._lock:
            is_new, self._complaint = kind != self._complaint, kind
        if is_new:
            log.warning("%s: PostgreSQL does not do as asked (%s)", self._use, kind)

    def _join(self) -> None:
        self._complaint = ""
        if self._reach.found():
            log.info("%s: PostgreSQL answers again", self._use)


def _kind(error: Exception) -> str:
    """Not the message: it may name the address, or what a stranger sent."""
    state = getattr(error, "sqlstate", None)
    return f"{type(error).__name__}{f', SQLSTATE {state}' if state else ''}"


def _close(connection: Connection | None) -> None:
    if connection is not None:
        with suppress(Exception):
            connection.close()
