"""A file of feedback with its labels, as far as there are any: what is shown of it, and the file that is given back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from qwen_allinone import csv_files
from ui import feedback, show
from ui.client import Task
from ui.feedback import BadRow, Row, Sheet
from ui.labelling import Outcome

_ROWS_SHOWN = 200
_ADDED = ("标签", "概率", "说明")
_EMPTY = Outcome(error="内容为空")
_NOT_REACHED = Outcome(error="未处理")


@dataclass(frozen=True)
class Labelled:
    """One column of a sheet under one label task. `found` tells the outcome of a text; None: it was not reached."""

    sheet: Sheet
    column: int
    task: Task
    found: Callable[[str], Outcome | None]

    @property
    def texts(self) -> list[str]:
        """Of all rows that have one, in their order."""
        return [text for row in self.sheet.rows if (text := self.text(row))]

    def text(self, row: Row) -> str:
        return row.cells[self.column].strip()

    def outcome(self, row: Row) -> Outcome:
        text = self.text(row)
        return (self.found(text) or _NOT_REACHED) if text else _EMPTY

    def shares(self) -> str:
        labels = Counter(outcome.label for row in self.sheet.rows if (outcome := self.outcome(row)).label)
        return show.shares(labels, self.task.labels)

    def table(self) -> str:
        rows = [self._shown(row) for row in self.sheet.rows[:_ROWS_SHOWN]]
        return show.table(self.sheet.columns[self.column], rows, self.task.labels, len(self.sheet.rows))

    def bad(self) -> str:
        """What has no label, by line: records that are none, and rows that the service would not take."""
        refused = [BadRow(row.line, error) for row in self.sheet.rows if (error := self.outcome(row).error)]
        return show.bad_rows(sorted([*self.sheet.bad, *refused], key=lambda bad: bad.line))

    def file(self) -> bytes:
        """All rows with their labels, as CSV."""
        rows = []
        for row in self.sheet.rows:
            outcome = self.outcome(row)
            sure = "" if outcome.probability is None else f"{outcome.probability:.4f}"
            rows.append((*row.cells, outcome.label, sure, outcome.error))
        return feedback.write((*self.sheet.columns, *csv_files.free_names(_ADDED, self.sheet.columns)), rows)

    def _shown(self, row: Row) -> show.TableRow:
        outcome = self.outcome(row)
        sure = "" if outcome.probability is None else show.percent(outcome.probability)
        return show.TableRow(row.line, self.text(row), outcome.label, sure, outcome.error)
