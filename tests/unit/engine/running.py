"""Engines that run under test: how long to wait for them, and how to hold or break their forward passes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from qwen_allinone.engine import Capacity, Engine, Ticket
from qwen_allinone.model.attention import Chunk

WAIT = 20.0
CAPACITY = Capacity(threads=1, slots=4, kv_tokens=256, step_tokens=16, max_waiting=8)

Start = Callable[..., Engine]


def wait_for(condition: Callable[[], bool], timeout: float = WAIT) -> None:
    ends = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < ends, "it never happens"
        time.sleep(0.002)


def failure(ticket: Ticket) -> type[BaseException]:
    return type(ticket.future.exception(WAIT))


class Gate:
    """Blocks forward passes until opened; `entered` is set when one waits."""

    def __init__(self) -> None:
        self.entered, self._open = threading.Event(), threading.Event()
        self._error: Exception | None = None

    def __call__(self, chunks: Sequence[Chunk]) -> None:
        self.entered.set()
        assert self._open.wait(WAIT)
        if self._error:
            raise self._error

    def open(self, error: Exception | None = None) -> None:
        """Let the passes go on, or fail with `error`."""
        self._error = error
        self._open.set()


class Faults:
    """Raises on the forward passes whose numbers are given, counted from 1."""

    def __init__(self, *numbers: int) -> None:
        self.numbers, self.count = set(numbers), 0
        self.error: Exception | None = None

    def __call__(self, chunks: Sequence[Chunk]) -> None:
        self.count += 1
        if self.count in self.numbers:
            raise self.error or RuntimeError(f"planted fault {self.count}")
