"""Is the client still there? One thread watches the connections of all requests that wait for the engine.

A connection counts as left when the client has closed it, or its sending side: from here both look the same, and
Nginx reads it so too. A client must therefore not shut down its sending side before it has its answer (`nc -N` does).
"""

from __future__ import annotations

import logging
import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

from flask import request

log = logging.getLogger(__name__)

_POLL_S = 60.0


class Disconnects:
    """Watches sockets without reading from them, so that pipelined requests stay where they are."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: dict[int, Callable[[], None]] = {}
        self._epoll: select.epoll | None = None

    def watch(self, leave: Callable[[], None]) -> AbstractContextManager[None]:
        """Call `leave` once if the client of the request in hand goes away while the context lasts.

        Only Gunicorn hands over its socket, and only Linux tells of a hang-up behind unread bytes: elsewhere nobody
        is watched, and a request whose client has left is computed to its end.
        """
        connection = request.environ.get("gunicorn.socket")
        if not isinstance(connection, socket.socket) or not hasattr(select, "epoll"):
            return nullcontext()
        fd = connection.fileno()
        if fd < 0:  # a stream's, closed before its work began
            leave()
            return nullcontext()
        return self._watching(fd, leave)

    @contextmanager
    def _watching(self, fd: int, leave: Callable[[], None]) -> Iterator[None]:
        with self._lock:
            if self._epoll is None:
                # Here and not earlier: threads and epoll do not survive the fork of a worker.
                self._epoll = select.epoll()
                threading.Thread(target=self._run, args=(self._epoll,), name="disconnects", daemon=True).start()
            self._watched[fd] = leave
            self._epoll.register(fd, select.EPOLLRDHUP)
        try:
            yield
        finally:
            with self._lock:
                # A stream may outlive its connection, whose number another has by now.
                if self._watched.get(fd) is leave:
                    self._forget(fd)

    def _run(self, epoll: select.epoll) -> None:
        while True:
            for fd, _ in epoll.poll(_POLL_S):
                self._left(fd)

    def _left(self, fd: int) -> None:
        with self._lock:
            # The number may have gone to another connection since the event.
            leave = self._forget(fd) if _hung_up(fd) else None
        if leave:
            log.debug("a client left before its answer")
            leave()

    def _forget(self, fd: int) -> Callable[[], None] | None:
        leave = self._watched.pop(fd, None)
        if leave and self._epoll:
            with suppress(OSError):
                self._epoll.unregister(fd)
        return leave


def _hung_up(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLRDHUP)
    return bool(poll.poll(0))
