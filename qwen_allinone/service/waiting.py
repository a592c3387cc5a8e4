"""Waiting for the engine, with the patience that a request's deadline leaves."""

from __future__ import annotations

import time
from contextlib import suppress
from queue import Empty, SimpleQueue

from qwen_allinone.engine import Result, Ticket
from qwen_allinone.errors import DeadlineExceeded
from qwen_allinone.model.pieces import TextPieces
from qwen_allinone.model.tokenizer import Tokenizer
from qwen_allinone.service.answers import Delta, Progress

# How long a caller waits past its deadline for the engine to say so itself.
_GRACE_S = 2.0


class Heard:
    """A reply on its way from the engine's thread, token by token, to who wants to hear of it as text."""

    def __init__(self, tokenizer: Tokenizer, progress: Progress) -> None:
        self._pieces = TextPieces(tokenizer.decode)
        self._progress = progress
        self._tokens: SimpleQueue[int | None] = SimpleQueue()
        self.put = self._tokens.put

    def tell_until_done(self, ticket: Ticket) -> None:
        """Returns when no more tokens come: the request has ended, well or not, or the engine is stuck."""
        ticket.future.add_done_callback(lambda _: self.put(None))
        untold = 0
        with suppress(Empty):
            while (token := self._tokens.get(timeout=patience_s(ticket))) is not None:
                untold += 1
                if piece := self._pieces.push(token):
                    self._progress(Delta(piece, untold))
                    untold = 0
        if (piece := self._pieces.end()) or untold:
            self._progress(Delta(piece, untold))


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
