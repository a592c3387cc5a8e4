"""A file of feedback being labelled: the sheet, the run over one of its columns, and what is shown of both."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from time import monotonic

from qwen_allinone import csv_files
from ui import feedback, show
from ui.client import Api, Task
from ui.feedback import BadRow, Row, Sheet
from ui.labelling import Labelling, Outcome

_TICK_S = 0.4
_ROWS_SHOWN = 200
_ADDED = ("标签", "概率", "说明")
_EMPTY = Outcome(error="内容为空")
_NOT_REACHED = Outcome(error="未处理")


class Batch:
    """One file, one column, one label task."""

    def __init__(self, api: Api, sheet: Sheet, column: int, task: Task, parallel: int) -> None:
        self._sheet, self._column, self._task = sheet, column, task
        self._labelling = Labelling(api, task, [text for row in sheet.rows if (text := self._text(row))], parallel)
        self._began = monotonic()
        self._over = False

    @property
    def given_up(self) -> str | None:
        """Why the run ended early, if the service was the reason."""
        return self._labelling.given_up

    def stop(self) -> None:
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
            said += f"，大约还要 {_duration(left)}"
        elif self._over:
            ended = "已停止" if run.stopped else "提前结束" if run.given_up else "完成"
            said += f"，{ended}，用时 {_duration(monotonic() - self._began)}"
        return show.progress(run.done, run.total, said)

    def shares(self) -> str:
        labels = Counter(outcome.label for row in self._sheet.rows if (outcome := self._outcome(row)).label)
        return show.shares(labels, self._task.labels)

    def table(self) -> str:
        rows = [self._shown(row) for row in self._sheet.rows[:_ROWS_SHOWN]]
        return show.table(self._sheet.columns[self._column], rows, self._task.labels, len(self._sheet.rows))

    def bad(self) -> str:
        """What has no label, by line: records that are none, and rows that the service would not take."""
        refused = [BadRow(row.line, error) for row in self._sheet.rows if (error := self._outcome(row).error)]
        return show.bad_rows(sorted([*self._sheet.bad, *refused], key=lambda bad: bad.line))

    def file(self) -> bytes:
        """All rows with their labels, as CSV."""
        rows = []
        for row in self._sheet.rows:
            outcome = self._outcome(row)
            sure = "" if outcome.probability is None else f"{outcome.probability:.4f}"
            rows.append((*row.cells, outcome.label, sure, outcome.error))
        return feedback.write((*self._sheet.columns, *csv_files.free_names(_ADDED, self._sheet.columns)), rows)

    def _text(self, row: Row) -> str:
        return row.cells[self._column].strip()

    def _outcome(self, row: Row) -> Outcome:
        text = self._text(row)
        return (self._labelling.outcome(text) or _NOT_REACHED) if text else _EMPTY

    def _shown(self, row: Row) -> show.TableRow:
        outcome = self._outcome(row)
        sure = "" if outcome.probability is None else show.percent(outcome.probability)
        return show.TableRow(row.line, self._text(row), outcome.label, sure, outcome.error)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} 秒" if seconds < 90 else f"{seconds / 60:.0f} 分钟"
