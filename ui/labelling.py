"""Labelling many texts: a few requests at a time, as fast as the service takes them and never faster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic

from ui.client import Answer, Api, ApiError, Task

# Without a single answer for this long the run is given up: the service may refuse for a full minute (429).
_REFUSED_S = 300.0
_UNREACHABLE_S = 20.0
_DEFAULT_RETRY_S = 2.0
_FATAL = (401, 403, 404)


@dataclass(frozen=True)
class Outcome:
    """A label, or the reason why there is none."""

    label: str = ""
    probability: float | None = None
    error: str = ""


class Labelling:
    """One run over `texts` with a label task of one input. Equal texts are asked once.

    While `running()` it goes on by itself; `done`, `waiting_s` and `outcome()` may be read at any time.
    """

    def __init__(self, api: Api, task: Task, texts: Sequence[str], parallel: int) -> None:
        self._api, self._task, self._parallel = api, task, parallel
        self._texts = tuple(texts)
        self._outcomes: dict[str, Outcome] = {}
        self._left = iter(dict.fromkeys(self._texts))
        self._resume_at = self._answered_at = monotonic()
        self.done = 0
        self.total = len(self._texts)
        self.stopped = False
        self.given_up: str | None = None
        self._counts: dict[str, int] = {}
        for text in self._texts:
            self._counts[text] = self._counts.get(text, 0) + 1

    @property
    def waiting_s(self) -> float:
        """Seconds until the service wants to be asked again; 0 while it answers."""
        return max(0.0, self._resume_at - monotonic())

    def outcome(self, text: str) -> Outcome | None:
        return self._outcomes.get(text)

    def stop(self) -> None:
        """Let no further request begin."""
        self.stopped = True

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        """The run as a task that is done when it ends; requests under way are given up when the block is left."""
        run = asyncio.create_task(self._run())
        try:
            yield run
        finally:
            run.cancel()
            await asyncio.gather(run, return_exceptions=True)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as workers:
            for _ in range(self._parallel):
                workers.create_task(self._work())

    async def _work(self) -> None:
        for text in self._left:
            outcome = await self._label(text)
            if outcome is None:
                return
            self._outcomes[text] = outcome
            self.done += self._counts[text]

    async def _label(self, text: str) -> Outcome | None:
        """Ask until there is an answer to keep; None where the run has ended before."""
        while True:
            # Short naps: another refusal may move the time meanwhile, or the run may be stopped.
            while (wait := self.waiting_s) and not self._over:
                await asyncio.sleep(min(wait, 0.2))
            if self._over:
                return None
            try:
                answer = await self._api.run(self._task, {self._task.inputs[0]: text})
            except ApiError as error:
                if error.status in _FATAL:
                    self.given_up = str(error)
                elif error.status in (429, 503) or error.status is None:
                    self._hold(error)
                else:
                    return Outcome(error=str(error))
            else:
                self._answered_at = monotonic()
                return _outcome(answer)

    @property
    def _over(self) -> bool:
        return self.stopped or self.given_up is not None

    def _hold(self, error: ApiError) -> None:
        now = monotonic()
        patience = _UNREACHABLE_S if error.status is None else _REFUSED_S
        if now - self._answered_at > patience:
            self.given_up = str(error)
        pause = _DEFAULT_RETRY_S if error.retry_after is None else error.retry_after
        self._resume_at = max(self._resume_at, now + pause)


def _outcome(answer: Answer) -> Outcome:
    if answer.label is None:
        return Outcome(error="服务没有给出标签")
    return Outcome(answer.label, (answer.probabilities or {}).get(answer.label))
