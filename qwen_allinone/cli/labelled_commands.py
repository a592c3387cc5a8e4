"""`qwen-allinone eval` and `calibrate`: a label task against rows whose right label is known."""

from __future__ import annotations

import time
from datetime import date
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from qwen_allinone.cli import result_files, tables
from qwen_allinone.cli.asking import AnsweredRow, Ask, ask_all, in_process, most_at_once, over_http
from qwen_allinone.cli.figures import Figures, figures_of
from qwen_allinone.cli.labelled_rows import Column, Table, read_table
from qwen_allinone.cli.loaded_service import load_service
from qwen_allinone.cli.temperature import fit
from qwen_allinone.cli.terminal import (
    AsJson,
    check_share,
    err,
    exit_with,
    key_of,
    load_settings,
    out,
    print_json,
    tell,
    worded,
)
from qwen_allinone.errors import DataFileError, QaioError
from qwen_allinone.settings import Settings
from qwen_allinone.tasks import Calibration, Quality, Registry, Task
from qwen_allinone.wording import said

TaskName = Annotated[str, typer.Argument(help=worded("arg_label_task"))]
Data = Annotated[Path, typer.Option(help=worded("opt_data"))]
TextColumn = Annotated[str, typer.Option(help=worded("opt_text_column"))]
LabelColumn = Annotated[str, typer.Option(help=worded("opt_label_column"))]
Map = Annotated[str, typer.Option("--map", help=worded("opt_map"))]
Limit = Annotated[int, typer.Option(min=0, help=worded("opt_limit"))]


def evaluate(
    task: TaskName,
    data: Data,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    names: Map = "",
    limit: Limit = 0,
    wrong: Annotated[Path, typer.Option(help=worded("opt_wrong_rows"))] = Path("wrong.csv"),
    url: Annotated[str, typer.Option(help=worded("opt_url"))] = "",
    key_file: Annotated[Path | None, typer.Option(help=worded("opt_key_if_asked"))] = None,
    at_least: Annotated[float, typer.Option(help=worded("opt_least_accuracy"))] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Compare the answers to labelled rows with their labels: accuracy, F1, confusion matrix, times, wrong rows."""
    settings = load_settings()
    try:
        check_share("--at-least", at_least)
        result_files.check_wrong(wrong)
        chosen = label_task(settings, task)
        table = labelled_table(chosen, data, text_column, label_column, names, limit)
        ask = over_http(url, task, chosen.labels, key_of(key_file)) if url else in_process(load_service(settings), task)
        began = time.perf_counter()
        answered = _ask_all(ask, table, settings, task)
        seconds = time.perf_counter() - began
        figures = figures_of([each.judged for each in answered], chosen.labels)
        mistaken = [each for each in answered if each.answer != each.row.label]
        result_files.write_wrong(wrong, mistaken)
    except QaioError as error:
        raise exit_with(error) from None
    if as_json:
        print_json(_for_programs(figures, seconds))
    else:
        tables.print_evaluation(
            out, worded("head_on_file", task=task, file=data.name), chosen, figures, answered, seconds
        )
    tell(err, said("wrong_rows_in", count=len(mistaken), file=wrong))
    if figures.accuracy < at_least:
        told = {"right": len(answered) - len(mistaken), "rows": len(answered), "least": f"{at_least:g}"}
        tell(err, said("accuracy_below", accuracy=f"{figures.accuracy:.4f}", **told))
        raise typer.Exit(1)


def _for_programs(figures: Figures, seconds: float) -> dict[str, object]:
    confusion = [{"label": gold, "answer": given, "rows": rows} for (gold, given), rows in figures.confusion.items()]
    return {
        "rows": figures.rows,
        "accuracy": figures.accuracy,
        "macro_f1": figures.macro_f1,
        "ece": figures.ece,
        "f1": figures.f1,
        "confusion": confusion,
        "rows_a_second": figures.rows / seconds,
    }


def calibrate(
    task: TaskName,
    data: Data,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    names: Map = "",
    limit: Limit = 0,
) -> None:
    """Fit a temperature to labelled rows, so that a probability is how often such answers are right."""
    settings = load_settings()
    try:
        chosen = label_task(settings, task)
        folder = settings.prompts / task
        if not result_files.is_writable(folder):
            raise DataFileError(said("prompts_read_only", folder=folder))
        table = labelled_table(chosen, data, text_column, label_column, names, limit)
        service = load_service(settings)
        fitted = fit(chosen, _ask_all(in_process(service, task), table, settings, task))
        calibration = Calibration(
            temperature=round(fitted.temperature, 4),
            model=service.codec.model_id.rpartition("@")[2],
            prompt=chosen.prompt_hash,
            data=table.sha256,
            rows=fitted.before.rows,
            date=date.today().isoformat(),
            before=Quality(accuracy=fitted.before.accuracy, ece=round(fitted.before.ece, 4)),
            after=Quality(accuracy=fitted.after.accuracy, ece=round(fitted.after.ece, 4)),
        )
        file = result_files.write_calibration(folder, calibration)
    except QaioError as error:
        raise exit_with(error) from None
    tables.print_calibration(out, worded("head_on_file", task=task, file=data.name), fitted)
    tell(err, said("calibration_kept", file=file))


def label_task(settings: Settings, name: str) -> Task:
    task = Registry.load(settings.prompts).get(name)
    if not task.labels:
        raise DataFileError(said("not_a_label_task", name=name))
    return task


def labelled_table(task: Task, data: Path, text_column: str, label_column: str, names: str, limit: int) -> Table:
    """The rows of the file; what is wrong with the others is printed. Without labels answers are texts."""
    columns = [Column(name, text_column if name == "text" else name) for name in task.spec.given]
    if len(columns) == 1:
        columns = [Column(columns[0].input, text_column)]
    pairs = [pair.partition("=") for pair in names.split(",") if pair.strip()]
    if pairs and not task.labels:
        raise DataFileError(said("map_without_labels", names=names, name=task.name))
    if any(not sign or after.strip() not in task.labels for _, sign, after in pairs):
        raise DataFileError(said("map_form", names=names, labels=task.labels[0], labels2=task.labels[1]))
    translated = {before.strip(): after.strip() for before, _, after in pairs}
    table = read_table(data, columns, label_column, task.labels or None, translated, limit)
    tables.print_problems(err, said("rows_unusable", count=len(table.problems), file=data.name), table.problems)
    return table


def _ask_all(ask: Ask, table: Table, settings: Settings, title: str) -> list[AnsweredRow]:
    """The answers there are; what kept the others from being answered is printed."""
    with Progress(console=err, transient=True) as progress:
        stream = ask_all(ask, table.rows, most_at_once(settings))
        asked = list(progress.track(stream, total=len(table.rows), description=title))
    failed = [said("at_line", line=each.row.line, problem=each.problem) for each in asked if each.problem]
    tables.print_problems(err, said("rows_unanswered", count=len(failed)), failed)
    answered = [each for each in asked if not each.problem]
    if not answered:
        raise DataFileError(said("no_row_answered"))
    return answered
