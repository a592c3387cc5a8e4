"""A reply on its way from the engine's thread to its caller's, as text."""

from __future__ import annotations

import time
from queue import Empty, SimpleQueue

from qwen_allinone.engine import Ticket
from qwen_allinone.service.answer_types import Listener
from qwen_allinone.service.detokenizer import TextPieces


class Reply:
    """The engine's thread turns tokens into pieces, the caller's takes them and tells its listener, if it has one."""

    def __init__(self, pieces: TextPieces, listener: Listener | None) -> None:
        self._pieces = pieces
        self._listener = listener
        self._queue: SimpleQueue[str | None] = SimpleQueue()
        self._told: list[str] = []

    @property
    def text(self) -> str:
        """All that has come so far."""
        return "".join(self._told)

    def hear(self, token: int) -> bool:
        """In the engine's thread: take a token, say whether a stop text is complete."""
        if piece := self._pieces.push(token):
            self._queue.put(piece)
        return self._pieces.stopped

    def follow(self, ticket: Ticket, ends: float) -> None:
        """Until the request has ended, well or not; `ends` (of time.monotonic()) is when the engine must be stuck."""
        ticket.future.add_done_callback(lambda _: self._queue.put(None))
        ended = False
        while not ended:
            try:
                waited = self._queue.get(timeout=max(ends - time.monotonic(), 0.0))
            except Empty:  # the engine is stuck, and may yet wake up: the pieces are its own
                return
            ended = waited is None
            piece = self._pieces.end() if waited is None else waited
            if piece:
                self._told.append(piece)
                if self._listener:
                    self._listener.delta(piece)
