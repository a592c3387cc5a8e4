"""Waiting for the engine, with the patience that a request's deadline leaves."""

from __future__ import annotations

import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

from qwen_allinone.engine import Result, Ticket
from qwen_allinone.errors import DeadlineExceeded
from qwen_allinone.model.pieces import TextPieces
from qwen_allinone.service.answers import Delta

# How long a caller waits past its deadline for the engine to say so itself.
_GRACE_S = 2.0


class Reply:
    """A reply on its way, as text: the engine's thread turns tokens into pieces, the caller's takes them."""

    def __init__(self, pieces: TextPieces) -> None:
        self._pieces = pieces
        self._queue: SimpleQueue[str | None] = SimpleQueue()

    def hear(self, token: int) -> bool:
        """In the engine's thread: take a token, say whether a stop text is complete."""
        self._queue.put(self._pieces.push(token))
        return self._pieces.stopped

    def until_done(self, ticket: Ticket, progress: Callable[[Delta], None] | None = None) -> str:
        """All of the text, when the request has ended, well or not, or the engine is stuck."""
        ticket.future.add_done_callback(lambda _: self._queue.put(None))
        told, untold = [], 0

        def tell(piece: str) -> None:
            told.append(piece)
            if progress:
                progress(Delta(piece, untold))

        try:
            while (piece := self._queue.get(timeout=patience_s(ticket))) is not None:
                untold += 1
                if piece:
                    tell(piece)
                    untold = 0
        except Empty:  # the engine is stuck, and may yet wake up: the pieces are its own
            return "".join(told)
        if (piece := self._pieces.end()) or untold:
            tell(piece)
        return "".join(told)


def result_of(ticket: Ticket) -> Result:
    """Wait for the answer; raises what the request ended with instead."""
    try:
        return ticket.future.result(timeout=patience_s(ticket))
    except TimeoutError:
        # The engine ends expired requests itself; it did not, so it is stuck in a step.
        raise DeadlineExceeded() from None


def patience_s(ticket: Ticket) -> float:
    """How long to wait for something of a request before the engine must be stuck, in seconds."""
    assert ticket.deadline is not None
    return max(ticket.deadline - time.monotonic(), 0.0) + _GRACE_S
