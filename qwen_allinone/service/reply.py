"""Replies on their way from the engine's thread to their caller's, as text."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from queue import Empty, SimpleQueue

from qwen_allinone.engine import Logprobs, Ticket
from qwen_allinone.service.answer_types import Answer, Listener
from qwen_allinone.service.detokenizer import TextPieces
from qwen_allinone.tasks import Masking, RestoredPieces


class Restoring:
    """A `Listener` that gives hidden numbers back in the pieces of a reply; `end` is to be called after the last."""

    def __init__(self, listener: Listener, masking: Masking) -> None:
        self._listener = listener
        self._pieces = RestoredPieces(masking, listener.delta)

    def submitted(self) -> None:
        self._listener.submitted()

    def labelled(self, sentiment: Answer, care: Answer | None) -> None:
        self._listener.labelled(sentiment, care)

    def delta(self, text: str, choice: int = 0, logprobs: Sequence[Logprobs] = ()) -> None:
        self._pieces.push(text)

    def end(self) -> None:
        self._pieces.end()


class Replies:
    """The replies of one request, by number (choices): the engine's thread turns tokens into pieces, the caller's takes
    them and tells its listener, if it has one."""

    def __init__(self, choices: Sequence[TextPieces], listener: Listener | None) -> None:
        self._choices = choices
        self._listener = listener
        # Number of the choice, and its next piece with the log-probabilities of its tokens; None at its end.
        self._queue: SimpleQueue[tuple[int, str | None, Sequence[Logprobs]]] = SimpleQueue()
        self._untold = [list[Logprobs]() for _ in choices]  # of tokens whose text is held back
        self._told = [list[str]() for _ in choices]

    @property
    def texts(self) -> list[str]:
        """All that has come so far, of each choice."""
        return ["".join(told) for told in self._told]

    def hear(self, choice: int, token: int, logprobs: Logprobs | None) -> bool:
        """In the engine's thread: take a token of a choice, say whether a stop text is complete."""
        pieces, untold = self._choices[choice], self._untold[choice]
        if logprobs:
            untold.append(logprobs)
        if piece := pieces.push(token):
            self._queue.put((choice, piece, tuple(untold)))
            untold.clear()
        return pieces.stopped

    def follow(self, tickets: Sequence[Ticket], ends: float, first: int = 0) -> None:
        """Until all have ended, well or not; they are the choices from number `first` on. `ends` (of
        time.monotonic()) is when the engine must be stuck."""
        for number, ticket in enumerate(tickets, first):
            ticket.future.add_done_callback(partial(self._ended, number))
        left = len(tickets)
        while left:
            try:
                choice, piece, logprobs = self._queue.get(timeout=max(ends - time.monotonic(), 0.0))
            except Empty:  # the engine is stuck, and may yet wake up: the pieces are its own
                return
            if piece is None:
                left -= 1
                piece, logprobs = self._choices[choice].end(), self._untold[choice]
            if piece:
                self._told[choice].append(piece)
            if self._listener and (piece or logprobs):
                self._listener.delta(piece, choice, logprobs)

    def _ended(self, choice: int, _: object) -> None:
        self._queue.put((choice, None, ()))
