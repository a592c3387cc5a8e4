"""Answers given before the whole body has come: 401, 413, 415, 429, 503. They must reach a client still sending it.

A socket closed with bytes unread resets the connection, and a reset takes the answer away: the client sees a broken
pipe. So such an answer says `Connection: close`, and what still comes is read and dropped, for a while.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# A client has this long in all, and may be silent this long, and may send this much that nobody reads.
_TOTAL_S = 10.0
_SILENT_S = 2.0
_MOST_BYTES = 32 * 1024 * 1024
_READ_BYTES = 256 * 1024
_SMALL_BYTES = 64 * 1024 - 1024  # what Gunicorn reads by itself before a connection is used again


@dataclass
class _Rest:
    """What one connection may still do."""

    ends: float
    silent_until: float
    bytes_left: int = _MOST_BYTES


def closing_if_unread(app: Any) -> Any:
    """The WSGI app `app`, ending the connection after an answer to a request of whose body much is unread.

    The rest would stand before the next request; Gunicorn itself reads small ones to their end.
    """

    def serve(environ: dict[str, Any], start_response: Any) -> Any:
        reader = environ["wsgi.input"].reader  # now: middleware may put something else there

        def start(*args: Any) -> Any:
            if _is_unread(reader):
                start_response.__self__.force_close()
            return start_response(*args)

        return app(environ, start)

    return serve


def _is_unread(reader: Any) -> bool:
    """Of a Gunicorn reader of a body by length, by chunks, or of none."""
    return getattr(reader, "length", 0) > _SMALL_BYTES or getattr(reader, "parser", None) is not None


class Lingering:
    """Connections that have their answer and are read out by the main loop's poller; `close` ends one for good."""

    def __init__(self, poller: Any, close: Callable[[Any], None]) -> None:
        self._poller = poller
        self._close = close
        self._rests: OrderedDict[Any, _Rest] = OrderedDict()  # who was heard longest ago comes first

    def add(self, connection: Any) -> None:
        """Say that no more will be sent on `connection`, and read until its client closes."""
        now = time.monotonic()
        try:
            connection.sock.setblocking(False)
            connection.sock.shutdown(socket.SHUT_WR)
            self._poller.register(connection.sock, selectors.EVENT_READ, lambda _: self._read(connection))
        except (OSError, ValueError, KeyError):  # gone already
            self._close(connection)
            return
        self._rests[connection] = _Rest(now + _TOTAL_S, now + _SILENT_S)

    def end_overdue(self) -> None:
        """End those whose time is up."""
        now = time.monotonic()
        while self._rests:
            connection, rest = next(iter(self._rests.items()))
            if now < min(rest.silent_until, rest.ends):
                return
            self._end(connection)

    def _read(self, connection: Any) -> None:
        rest = self._rests[connection]
        try:
            received = len(connection.sock.recv(_READ_BYTES))
        except BlockingIOError:
            return
        except OSError:
            received = 0
        now = time.monotonic()
        rest.bytes_left -= received
        if not received or rest.bytes_left <= 0 or now >= rest.ends:
            self._end(connection)
            return
        rest.silent_until = now + _SILENT_S
        self._rests.move_to_end(connection)

    def _end(self, connection: Any) -> None:
        del self._rests[connection]
        self._poller.unregister(connection.sock)
        self._close(connection)
