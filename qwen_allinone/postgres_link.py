"""A PostgreSQL that may be away: asked with a short timeout, given up at once, tried again every two seconds.

One of these serves all that a process keeps there, so that a worker holds few connections. psycopg is asked for only
where this is used: it is in requirements-postgres.txt, not among what the service needs.
"""

from __future__ import annotations

import logging
import os
import select
import socket
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
_MOST_TIMEOUTS = 3  # and all questions of a transaction together: PostgreSQL keeps to the first, unless it is frozen
# A connection that nobody used for so long may have been cut off by something in between.
_IDLE_S = 60.0
_MOST_IDLE = 8
_APPLICATION = "qwen-allinone"

Connection = Any  # psycopg.Connection, where that is installed


SetUp = Callable[[Connection], None]


class PostgresLink:
    """A process's connections to a PostgreSQL, each for one thread at a time and none for two processes.

    Raises StartupError if psycopg is absent.
    """

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        if psycopg is None:
            raise StartupError(said("needs_psycopg"))
        self._url = url
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._idle: list[tuple[int, float, Connection]] = []
        self._inherited: list[Connection] = []  # of the process that forked this one: not ours to close
        self._are_set_up: set[SetUp] = set()
        self._complaint = ""
        self._reach = Reach()

    @contextmanager
    def asking(self, set_up: SetUp, use: str, *, patiently: bool = False) -> Iterator[Connection]:
        """A connection for one transaction, which ends with the context; whatever goes wrong with it is Away.

        `set_up` makes what tables the question needs: the first time in a process, in a transaction of its own. `use`
        begins the log lines. `patiently`: it may take as long as it takes. A PostgreSQL that answers that it will not
        (full, read-only, somebody else holds a lock) is asked again by the next; one that does not answer is left alone
        for a while.
        """
        self._reach.check()
        connection = None
        try:
            connection = self._take() or self._open()
            if set_up not in self._are_set_up:
                with self._watched(connection, patiently), connection.transaction():
                    set_up(connection)
                self._are_set_up.add(set_up)
            with self._watched(connection, patiently), connection.transaction():
                yield connection
        except QaioError:
            self._give_back(connection)
            raise
        except (psycopg.Error, OSError, ValueError, TypeError) as error:
            if connection is not None and not connection.closed and not connection.broken:
                # Tables that are gone or have changed under us: the next question looks at them anew.
                if not isinstance(error, psycopg.Error) or str(error.sqlstate).startswith("42"):
                    self._are_set_up.clear()
                    _close(connection)
                else:
                    self._give_back(connection)
                self._complain(use, error)
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

    @contextmanager
    def _watched(self, connection: Connection, patiently: bool) -> Iterator[None]:
        """Cut the connection off when its time is over: of one that is frozen nothing comes, and psycopg would wait."""
        is_over, lock = False, threading.Lock()

        def cut_off() -> None:
            with lock, suppress(OSError, psycopg.Error):
                if not is_over:
                    with socket.socket(fileno=os.dup(connection.fileno())) as ours:
                        ours.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(self._timeout_s * _MOST_TIMEOUTS, cut_off)
        timer.daemon = True
        if not patiently:
            timer.start()
        try:
            yield
        finally:
            timer.cancel()
            with lock:  # or it might cut off whoever has the descriptor next
                is_over = True

    def tried(self, connection: Connection, statement: str) -> bool:
        """Whether PostgreSQL does it. If not, the transaction goes on without it."""
        try:
            with connection.transaction():
                connection.execute(statement)
        except psycopg.Error as error:
            if connection.broken:
                raise
            log.debug("PostgreSQL refuses (%s): %s", _kind(error), statement)
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
        return psycopg.connect(
            self._url,
            autocommit=True,
            connect_timeout=max(2, int(self._timeout_s)),
            application_name=_APPLICATION,
            options=f"-c statement_timeout={wait_ms} -c lock_timeout={wait_ms} -c client_encoding=UTF8"
            " -c default_transaction_isolation=read\\ committed",
            tcp_user_timeout=wait_ms * 2,
            prepare_threshold=None,  # a pooler in between may give each transaction another connection
        )

    def _take(self) -> Connection | None:
        with self._lock:
            while self._idle:
                process, since, connection = self._idle.pop()
                if process != os.getpid():
                    self._inherited.append(connection)
                elif connection.closed or time.monotonic() - since > _IDLE_S or _was_cut_off(connection):
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
            log.warning(
                "PostgreSQL does not answer (%s); requests for what is kept there are answered 503 until it does",
                _kind(error),
            )

    def _complain(self, use: str, error: Exception) -> None:
        kind = _kind(error)
        with self._lock:
            is_new, self._complaint = kind != self._complaint, kind
        if is_new:
            log.warning("%s: PostgreSQL does not do as asked (%s)", use, kind)

    def _join(self) -> None:
        self._complaint = ""
        if self._reach.found():
            log.info("PostgreSQL answers again")


def _was_cut_off(connection: Connection) -> bool:
    """Whether something came though nobody asked: a restart's farewell, or the end. Costs no question."""
    try:
        waiting = select.poll()
        waiting.register(connection.fileno(), select.POLLIN)
        return bool(waiting.poll(0))
    except (psycopg.Error, OSError):
        return True


def _kind(error: Exception) -> str:
    """Not the message: it may name the address, or what a stranger sent."""
    state = getattr(error, "sqlstate", None)
    return f"{type(error).__name__}{f', SQLSTATE {state}' if state else ''}"


def _close(connection: Connection | None) -> None:
    if connection is not None:
        with suppress(Exception):
            connection.close()
