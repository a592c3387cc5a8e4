"""A request's work on its way through the engine. Every ticket ends exactly once: with a result or with an error."""

from __future__ import annotations

import math
import time
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field

from qwen_allinone.engine.work import FinishReason, Result, Work


@dataclass(eq=False)
class Ticket:
    """The caller waits on `future` and may `cancel`. Times are those of time.monotonic(), 0 for what never was.

    `rank` orders the waiting line: the older request's is lower, see Permit; `caller` is whose it is. Those of higher
    `priority` come first. `behind`: nobody waits for it, and all others come first. `started` is when the work got a
    slot.
    """

    work: Work
    deadline: float = math.inf
    rank: int = 0
    caller: str | None = None
    behind: bool = False
    priority: int = 0
    future: Future[Result] = field(default_factory=Future)
    cancelled: bool = False
    submitted: float = field(default_factory=time.monotonic)
    started: float = 0.0
    first_token: float = 0.0
    reused: int = 0

    def cancel(self) -> None:
        """Ask the engine to stop working on this; takes effect within two steps."""
        self.cancelled = True

    def result(self, reason: FinishReason) -> Result:
        """The answer as it stands now."""
        return self._result(reason, **self.work.fields())

    def unfinished(self) -> Result | None:
        """What was computed for a request that ended with an error; None if it never got a slot."""
        return self._result(FinishReason.UNFINISHED) if self.started else None

    def finish(self, result: Result) -> None:
        """End with an answer."""
        with suppress(InvalidStateError):  # ended by another thread while its last step ran
            self.future.set_result(result)

    def fail(self, error: Exception) -> None:
        """End with a typed error. The first end counts."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)

    def _result(self, reason: FinishReason, **fields: object) -> Result:
        now = time.monotonic()
        first = self.first_token or now
        return Result(
            finish_reason=reason,
            ids=self.work.ids,
            prompt_tokens=len(self.work.prompt),
            reused_tokens=self.reused,
            queue_s=self.started - self.submitted,
            prefill_s=first - self.started,
            decode_s=now - first,
            submitted=self.submitted,
            **fields,  # type: ignore[arg-type]
        )
