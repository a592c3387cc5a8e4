"""Clients of the event stream over real HTTP."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.events import Event, read_events

SECONDS = 60.0


class Stream:
    """One chat as events, while they come."""

    def __init__(self, connection: http.client.HTTPConnection, text: str, request_id: str = "", **more: object) -> None:
        body = json.dumps({"text": text, "stream": True, **more}, ensure_ascii=False).encode()
        connection.request("POST", "/chat", body, {"Content-Type": "application/json", "X-Request-Id": request_id})
        self._connection = connection
        self.response = connection.getresponse()

    @property
    def status(self) -> int:
        return self.response.status

    def events(self) -> Iterator[Event]:
        """Raises http.client.IncompleteRead where the server ended in the middle."""
        return read_events(iter(self._block, b""))

    def _block(self) -> bytes:
        return self.response.read1(65536)

    def leave(self) -> None:
        """Hang up, whatever is still to come."""
        if self._connection.sock:
            self._connection.sock.close()
        self.response.close()
        self._connection.close()


@contextmanager
def stream(port: int, text: str, request_id: str = "", **more: object) -> Iterator[Stream]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    opened = Stream(connection, text, request_id, **more)
    try:
        yield opened
    finally:
        opened.leave()


def streamed(port: int, text: str, **more: object) -> list[Event]:
    """All events of one chat; fails where it is refused."""
    with stream(port, text, **more) as opened:
        assert opened.status == 200, opened.response.read()
        return list(opened.events())
