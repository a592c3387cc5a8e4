"""Server-sent events (WHATWG HTML, section 9.2): an answer that is sent while it is made."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from queue import Empty, SimpleQueue
from typing import Any

from flask import Response, request

from qwen_allinone.errors import Cancelled, ServerBusy
from qwen_allinone.http import error_answers, idempotency, rate_limits
from qwen_allinone.http.backend import Backend
from qwen_allinone.http.request_state import current

MIMETYPE = "text/event-stream"
PING = b": ping\n\n"
_EXTENSION = "x-event-stream"
# For work that was given up to end, so that what is told of the request is complete.
_END_S = 2.0


def asked_for(stream: bool | None) -> bool:
    """Whether the request in hand wants events: as its body says, else as its Accept header prefers."""
    if stream is not None:
        return stream
    return request.accept_mimetypes.best_match(["application/json", MIMETYPE]) == MIMETYPE


def respond(work: Callable[[Writer], None], backend: Backend) -> Response:
    """Run `work` in a thread and answer with what it writes, in that order; a ping in each pause.

    What `work` raises before it has written anything is raised here and gets an answer of its own; later it becomes an
    `error` event. Whatever `work` awaits under the writer's `watch` is given up when the client leaves. The tokens that
    it took are charged at its end, however it ends. No stream may have an Idempotency-Key.
    """
    idempotency.refuse_stream()
    stream = Writer(work, backend)
    stream.begin()
    return Response(stream, mimetype=MIMETYPE, headers={"X-Accel-Buffering": "no"})


def documented(events: str) -> dict[str, Any]:
    """For `openapi_extensions` of a route that may answer with the `events` described."""
    return {_EXTENSION: events}


def document(spec: dict[str, Any]) -> dict[str, Any]:
    """Add event streams to the answers of routes that may stream; the library knows one media type an answer."""
    for operations in spec["paths"].values():
        for operation in operations.values():
            if events := operation.pop(_EXTENSION, None):
                schema = {"type": "string", "description": events}
                operation["responses"]["200"]["content"][MIMETYPE] = {"schema": schema}
    return spec


class _Left(Exception):
    """Nobody reads any more."""


class Writer:
    """Writes the events of one answer, which is the body of its response. Both of our streams come from here.

    A slow reader costs memory for one answer, and nobody waits for him.
    """

    def __init__(self, work: Callable[[Writer], None], backend: Backend) -> None:
        self._work, self._client, self._ping_s = work, backend.disconnects.watch, backend.ping_s
        self._frames: SimpleQueue[bytes | Exception | None] = SimpleQueue()
        self._state = current()  # of this request: who closes the stream has none
        self._sent = False
        self._done = False
        self._closed = False
        self._give_up: Callable[[], None] | None = None
        # The context goes along: the thread notes errors and tokens with the request, and logs with its id.
        self._thread = threading.Thread(target=copy_context().run, args=(self._run,), name="stream", daemon=True)
        self._first = PING

    def send(self, data: Any, *, event: str | None = None) -> None:
        """Send `data` as JSON, which never holds a raw line end; `event` names the event.

        Raises:
            An error that ends the work, if the client has left.
        """
        if self._closed:
            raise _Left
        self._sent = True
        head = f"event: {event}\n" if event else ""
        self._frames.put(f"{head}data: {json.dumps(data, ensure_ascii=False, allow_nan=False)}\n\n".encode())

    def ping(self) -> None:
        """Send something that says nothing; raises as `send`."""
        self._put(PING)

    def tell_alerts(self) -> None:
        """All is answered but for the last event, after which the client knows that it is."""
        if self._state.alerts:
            self._state.tell_alerts()

    def end(self, mark: str) -> None:
        """Send a last `mark` that is no JSON; raises as `send`."""
        self._put(f"data: {mark}\n\n".encode())

    @contextmanager
    def watch(self, leave: Callable[[], None]) -> Iterator[None]:
        """The `Watch` of what is streamed: `leave` is called when the client leaves or the stream is closed."""
        self._give_up = leave
        try:
            with self._client(leave):
                if self._closed:
                    leave()
                yield
        finally:
            self._give_up = None

    def begin(self) -> None:
        """Wait until there is something to send; raises what `work` raised instead."""
        try:
            self._thread.start()
        except RuntimeError:  # no more threads
            raise ServerBusy() from None
        first = self._frames.get()
        if isinstance(first, Exception):
            raise first
        assert first is not None, "a stream must send something"
        self._first = first

    def __iter__(self) -> Iterator[bytes]:
        yield self._first
        while True:
            try:
                frame = self._frames.get(timeout=self._ping_s)
            except Empty:
                frame = PING
            if not isinstance(frame, bytes):
                return
            yield frame

    def close(self) -> None:
        """The response is over, sent or not."""
        self._closed = True
        if not self._done:
            self._state.errors.append(Cancelled.code)
        if give_up := self._give_up:
            give_up()
        self._thread.join(_END_S)

    def _run(self) -> None:
        try:
            self._work(self)
        except _Left:
            pass
        except Exception as error:
            if not self._sent:
                self._frames.put(error)
                return  # it gets an answer of its own, which is charged as others are
            with suppress(_Left):
                self.send(error_answers.describe(error), event="error")
        finally:
            if self._sent:
                rate_limits.charge_answers(self._state.answers)
            self._done = True
            self._frames.put(None)

    def _put(self, frame: bytes) -> None:
        if self._closed:
            raise _Left
        self._sent = True
        self._frames.put(frame)
