"""What the feedback desk makes of answers: alarms, suggested replies, a report. Its own code does it; no model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from threading import Event

from qwen_allinone import csv_files, feedback_columns
from qwen_allinone.desk import asking, figures, outputs, report, sources, table
from qwen_allinone.desk.journal import Answers
from ui import feedback, show
from ui.client import Task
from ui.feedback import Sheet
from ui.labelled import Labelled

SENTIMENT, SUGGEST = asking.SENTIMENT, asking.SUGGEST
LABELS = (asking.INTENT, asking.CARE, asking.KEYWORDS)  # asked beside the sentiment
_ALARMS_SHOWN = 30

Said = asking.Said
is_cut = asking.is_cut
Look = Callable[[str, str], "Said | str | None"]  # of a task and a text: what it said, why nothing, or not asked


def fits(task: Task) -> bool:
    """Whether a report can be made of what it says."""
    return task.name == SENTIMENT and {asking.POSITIVE, asking.NEGATIVE} <= set(task.labels)


@dataclass(frozen=True)
class About:
    """What a report tells beside the answers: the model, the file, each task's labels and its gold cases, number and
    share of right ones."""

    model: str
    file: str
    labels: Mapping[str, tuple[str, ...]]
    gold: Mapping[str, tuple[int, float]]


class DeskResults:
    """Of a sheet whose answers are known. Made off the event loop: it walks over all rows."""

    def __init__(self, labelled: Labelled, about: About, look: Look) -> None:
        self._labelled, self._about = labelled, about
        infos = {
            name: asking.TaskInfo(labels, asking.Gold(*about.gold[name]) if name in about.gold else None)
            for name, labels in about.labels.items()
        }
        self._clerk = asking.Clerk(about.model, infos, lambda task, inputs: _said(look, task, inputs["text"]))
        self._columns = _columns(labelled.sheet, labelled.column)
        self._rows = [(row, self._answers(row.text)) for row in self._feedback()]
        self.figures = figures.Figures()
        for row, answers in self._rows:
            self.figures.add(row, answers)
        for bad in labelled.sheet.bad:
            self.figures.add(self._row(bad.line, ()), Answers(problem=bad.reason))

    def complaints(self) -> dict[str, dict[str, str]]:
        """By text, what a reply is to be suggested for: the inputs of that task."""
        return {
            row.text: {"text": row.text, "label": answers.sentiment, "intent": answers.intent}
            for row, answers in self._rows
            if answers.intent == asking.COMPLAINT and asking.HELP not in answers.alarms
        }

    @cached_property
    def report(self) -> str:
        """An HTML page."""
        about = report.About(
            (self._about.file,),
            self._about.model,
            self._columns,
            dict(self._clerk.tasks),
            asking.SURE,
            datetime.now().replace(microsecond=0),
        )
        return report.render(self.figures, about)

    def alarms(self) -> str:
        """As HTML."""
        shown = [
            show.Alarm(figures.level(a.alarms), a.alarms, quote.said, quote.where, a.suggestion)
            for quote in self.figures.gravest()[:_ALARMS_SHOWN]
            for a in (quote.answers,)
        ]
        return show.alarms(self.figures.alarmed, shown, self.figures.drafts_dropped)

    def alarm_file(self) -> bytes:
        """All alarms, as CSV."""
        alarmed = [outputs.alert_row(row, answers) for row, answers in self._rows if answers.alarms]
        return feedback.write(outputs.ALERT_COLUMNS, alarmed)

    def file(self) -> bytes:
        """All rows with all that was found, as CSV."""
        columns = self._labelled.sheet.columns
        names = (*columns, *csv_files.free_names(outputs.ADDED, columns))
        return feedback.write(names, [outputs.labelled_row(row, answers) for row, answers in self._rows])

    def _answers(self, text: str) -> Answers:
        return asking.answer(self._clerk, tuple(self._clerk.tasks), text, asking.SURE, Event())

    def _feedback(self) -> list[table.Feedback]:
        return [self._row(row.line, row.cells) for row in self._labelled.sheet.rows]

    def _row(self, line: int, cells: tuple[str, ...]) -> table.Feedback:
        columns = self._labelled.sheet.columns

        def cell(name: str) -> str:
            return cells[columns.index(name)].strip() if name and cells else ""

        chosen = self._columns
        return table.Feedback(
            self._about.file,
            sources.Row(line, cells),
            cell(chosen.text),
            cell(chosen.date),
            cell(chosen.product),
            cell(chosen.rating),
            cells,
        )


def _said(look: Look, task: str, text: str) -> Said:
    found = look(task, text)
    if isinstance(found, Said):
        return found
    if task == SENTIMENT:
        raise asking.Refused(found or "未处理")
    return Said()  # the row has its label all the same


def _columns(sheet: Sheet, text: int) -> table.Columns:
    """The chosen column, and guesses at the others."""
    sample = [row.cells for row in sheet.rows[:100]]

    def name(likely: Callable[..., int | None]) -> str:
        place = likely(sheet.columns, sample, (text,))
        return "" if place is None else sheet.columns[place]

    return table.Columns(
        sheet.columns[text],
        name(feedback_columns.likely_date),
        name(feedback_columns.likely_product),
        name(feedback_columns.likely_rating),
    )
