"""A file of feedback that is labelled while its visitor waits: where the service works no batches off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from time import monotonic

from ui import show
from ui.client import Api, Task
from ui.feedback import Sheet
from ui.labelled import Labelled
from ui.labelling import Labelling

_TICK_S = 0.4


class Batch:
    """One file, one column, one label task."""

    def __init__(self, api: Api, sheet: Sheet, column: int, task: Task, parallel: int) -> None:
        self.labelled = Labelled(sheet, column, task, lambda text: self._labelling.outcome(text))
        self._labelling = Labelling(api, task, self.labelled.texts, parallel)
        self._began = monotonic()
        self._over = False

    @property
    def given_up(self) -> str | None:
        """Why the run ended early, if the service was the reason."""
        return self._labelling.given_up

    async def stop(self) -> None:
        self._labelling.stop()

    async def run(self) -> AsyncGenerator[None, None]:
        """Label everything; yields now and then, for the progress to be shown."""
        async with self._labelling.running() as run:
            yield
            while not run.done():
                await asyncio.wait({run}, timeout=_TICK_S)
                yield
            run.result()
        self._over = True

    def progress(self) -> str:
        run = self._labelling
        said = f"{run.done} / {run.total} 条"
        if not self._over and run.waiting_s >= 1:
            said += f"，服务正忙，{run.waiting_s:.0f} 秒后继续"
        elif not self._over and run.done:
            left = (monotonic() - self._began) / run.done * (run.total - run.done)
            said += f"，大约还要 {show.duration(left)}"
        elif self._over:
            ended = "已停止" if run.stopped else "提前结束" if run.given_up else "完成"
            said += f"，{ended}，用时 {show.duration(monotonic() - self._began)}"
        return show.progress(run.done, run.total, said)
