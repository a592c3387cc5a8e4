"""An engine's life: its states, and who may go where.

             ┌──────────── loaded() ───────────┐
             v                                 │
LOADING ─> READY ── failed() ──> FAILED ───────┘
   │         │                     │ ^
   │         │  drain(): DRAINING  └─┘ failed() again
   │         │  is shown instead
   │         │
   ├─────────┴──── stuck() ───> STUCK      for good: the process must be replaced
   └─────────┴──── stopped() ─> STOPPED    for good
"""

from __future__ import annotations

import enum
import threading


class Status(enum.StrEnum):
    """What the engine is doing; requests are taken in READY only."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    STUCK = "stuck"
    FAILED = "failed"
    STOPPED = "stopped"


_FOR_GOOD = (Status.STUCK, Status.STOPPED)
_DRAINABLE = (Status.LOADING, Status.READY)


class Life:
    """The state of one engine. Its methods may be called from any thread, `drain` from a signal handler too."""

    def __init__(self) -> None:
        self.problem = ""  # why the model is not ready, for an operator; empty when nothing went wrong
        self._status = Status.LOADING
        self._draining = False
        self._settled = threading.Event()
        self._lock = threading.Lock()

    @property
    def status(self) -> Status:
        """Where it stands; DRAINING hides LOADING and READY."""
        return Status.DRAINING if self._draining and self._status in _DRAINABLE else self._status

    def loaded(self) -> None:
        """A model is loaded and its first forward passes are done."""
        self._go(Status.READY)

    def failed(self, problem: str | None = None) -> None:
        """It does not load, or the loop has ended; `problem` None keeps what is known."""
        self._go(Status.FAILED, problem)

    def stuck(self, problem: str) -> None:
        """A forward pass does not end."""
        self._go(Status.STUCK, problem)

    def stopped(self) -> None:
        """The thread has ended as it was told to."""
        self._go(Status.STOPPED, None)

    def drain(self) -> None:
        """Take no more requests from here on."""
        self._draining = True

    def wait_until_settled(self, timeout: float | None) -> Status:
        """Block until the first load has succeeded or failed."""
        self._settled.wait(timeout)
        return self.status

    def _go(self, status: Status, problem: str | None = "") -> None:
        with self._lock:
            if self._status not in _FOR_GOOD:
                self._status = status
                self.problem = self.problem if problem is None else problem
        self._settled.set()
