"""What a finished run leaves: labelled.csv, alerts.csv and report.html, each written whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from qwen_allinone.csv_files import MARK, encode_rows, free_names
from qwen_allinone.desk.figures import Figures, level
from qwen_allinone.desk.journal import Answers, Journal
from qwen_allinone.desk.report import About, render
from qwen_allinone.desk.table import Feedback, Table
from qwen_allinone.errors import DataFileError
from qwen_allinone.files import replaced_file
from qwen_allinone.wording import said

LABELLED, ALERTS, REPORT = "labelled.csv", "alerts.csv", "report.html"

ADDED = ("情感", "情感概率", "意图", "意图概率", "关键词", "报警", "建议回复", "说明", "文件", "行")
ALERT_COLUMNS = ("级别", "报警", "内容", "情感", "情感概率", "意图", "建议回复", "日期", "商品", "评分", "文件", "行")


def write(folder: Path, table: Table, journal: Journal, about: About) -> Figures:
    """Write the three files from the table and what is in the journal, row by row; returns what they come to.

    Raises:
        DataFileError: a file cannot be written, or the table cannot be read again.
    """
    figures = Figures()
    try:
        with replaced_file(folder / LABELLED) as labelled, replaced_file(folder / ALERTS) as alerts:
            _add(labelled, [*table.columns, *free_names(ADDED, table.columns)], mark=True)
            _add(alerts, ALERT_COLUMNS, mark=True)
            for feedback, answers in _both(table, journal):
                figures.add(feedback, answers)
                _add(labelled, labelled_row(feedback, answers))
                if answers.alarms:
                    _add(alerts, alert_row(feedback, answers))
        with replaced_file(folder / REPORT) as report:
            report.write(render(figures, about).encode("utf-8", "replace"))
    except OSError as error:
        raise DataFileError(
            said(
                "results_unwritable",
                folder=folder,
                strerror=error.strerror,
                done=journal.done,
                name=journal.path.name,
            )
        ) from None
    return figures


def _both(table: Table, journal: Journal) -> Iterator[tuple[Feedback, Answers]]:
    try:
        yield from zip(table.rows(), journal.answers(), strict=True)
    except ValueError:
        raise DataFileError(said("labelled_file_changed")) from None


def labelled_row(feedback: Feedback, answers: Answers) -> list[str]:
    """A row of labelled.csv: its own cells, then those of `ADDED`."""
    return [
        *feedback.cells,
        answers.sentiment,
        _share(answers.probability),
        answers.intent,
        _share(answers.intent_probability),
        "、".join(answers.keywords),
        "、".join(answers.alarms),
        answers.suggestion,
        answers.problem or (said("draft_dropped") if answers.draft_dropped else ""),
        feedback.file,
        str(feedback.row.line),
    ]


def alert_row(feedback: Feedback, answers: Answers) -> list[str]:
    """A row of alerts.csv, as `ALERT_COLUMNS` names its cells."""
    return [
        level(answers.alarms),
        "、".join(answers.alarms),
        feedback.text,
        answers.sentiment,
        _share(answers.probability),
        answers.intent,
        answers.suggestion,
        feedback.date,
        feedback.product,
        feedback.rating,
        feedback.file,
        str(feedback.row.line),
    ]


def _share(probability: float) -> str:
    return f"{probability:.4f}" if probability else ""


def _add(file: BinaryIO, cells: Sequence[str], *, mark: bool = False) -> None:
    file.write((MARK if mark else b"") + encode_rows([cells]))
