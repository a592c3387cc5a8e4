"""`qwen-allinone tune-prompt`: the way to write a task's prompt that this model answers best, on labelled rows."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table as Figures

from qwen_allinone.cli import tables
from qwen_allinone.cli.labelled_commands import (
    Data,
    LabelColumn,
    Limit,
    Map,
    TaskName,
    TextColumn,
    label_task,
    labelled_table,
)
from qwen_allinone.cli.labelled_rows import Row
from qwen_allinone.cli.loaded_service import load_service
from qwen_allinone.cli.terminal import err, exit_with, in_terminal, load_settings, out, tell, worded
from qwen_allinone.errors import DataFileError, QaioError, RequestError
from qwen_allinone.files import replace_file
from qwen_allinone.service import FittedTask, GoldFit, Service, Terms, fit_task, fit_to_gold
from qwen_allinone.tasks import Task, Variant, body_of, has_examples, load_task, role_slip, variants
from qwen_allinone.wording import said

_HELD_OUT = 5  # of so many rows one only judges the winner
_FEWEST = 20
_AT_ONCE = 8


@dataclass(frozen=True)
class _Tried:
    """A way to write the prompt, and how the rows were answered that it was chosen by."""

    variant: Variant
    fitted: FittedTask
    fit: GoldFit


def tune_prompt(
    task: TaskName,
    data: Data,
    instruction: Annotated[list[str] | None, typer.Option(help=worded("opt_instruction"))] = None,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    names: Map = "",
    limit: Limit = 0,
    write: Annotated[bool, typer.Option(help=worded("opt_write"))] = False,
) -> None:
    """Try fewer examples, other orders, both forms and other instructions on labelled rows; print a table."""
    settings = load_settings()
    try:
        chosen = _varied(label_task(settings, task))
        instructions = _instructions(instruction or [])
        rows = labelled_table(chosen, data, text_column, label_column, names, limit).rows
        if len(rows) < _FEWEST:
            raise DataFileError(said("too_few_rows", data=data, count=len(rows), fewest=_FEWEST))
        judging = [row for number, row in enumerate(rows) if number % _HELD_OUT == 0]
        choosing = [row for number, row in enumerate(rows) if number % _HELD_OUT]
        service = load_service(settings)
        tried = _try_all(service, list(variants(chosen, instructions)), choosing)
        best = max(tried, key=lambda each: (each.fit.accuracy, -each.fit.loss))
        before, after = (_fit(service, each.fitted, judging) for each in (tried[0], best))
        title = worded("head_rows_of_file", task=task, count=len(choosing), file=data.name)
        out.print(_figures(title, tried, best))
        shares = {"before": f"{before.accuracy:.1%}", "after": f"{after.accuracy:.1%}"}
        tell(err, said("on_other_rows", count=before.cases, **shares))
        if write and (after.accuracy, -after.loss) > (before.accuracy, -before.loss):
            _write(settings.prompts / task, chosen, best.variant)
        elif write:
            tell(err, said("best_no_better"))
    except QaioError as error:
        raise exit_with(error) from None


def _varied(task: Task) -> Task:
    if not has_examples(task):
        raise DataFileError(said("prompt_form_fixed", name=task.name))
    if task.adapter:
        raise DataFileError(said("prompt_has_adapter", name=task.name))
    return replace(task, calibration=None)  # it holds for the prompt as it is


def _instructions(texts: Sequence[str]) -> Sequence[str]:
    for text in texts:
        if not text.strip() or re.search(r"^(system|user|assistant):", text, re.MULTILINE) or role_slip(text):
            raise DataFileError(said("instruction_form"))
    return texts


def _try_all(service: Service, ways: Sequence[Variant], rows: Sequence[Row]) -> list[_Tried]:
    codec, tried = service.codec, list[_Tried]()
    with Progress(console=err, transient=True) as progress:
        for variant in progress.track(ways, description=worded("ways_to_write")):
            fitted = fit_task(variant.task, codec.tokenizer, codec.context, identity="", model_id=codec.model_id)
            tried.append(_Tried(variant, fitted, _fit(service, fitted, rows)))
    return tried


def _fit(service: Service, fitted: FittedTask, rows: Sequence[Row]) -> GoldFit:
    """How the rows are answered, as the model has it and fitted as the service fits a task to its gold cases."""
    trie, labels = fitted.trie, fitted.task.labels
    assert trie is not None, "label tasks have labels"
    asked, problems = list[tuple[list[int], int]](), list[str]()
    for row in rows:
        try:
            ids = fitted.prompt(row.inputs, {})
        except RequestError as error:
            problems.append(said("at_line", line=row.line, problem=error))
            continue
        if len(ids) + trie.longest <= fitted.context:
            asked.append((ids, labels.index(row.label)))
        else:
            problems.append(said("at_line", line=row.line, problem=said("above_context", context=fitted.context)))
    tables.print_problems(err, said("rows_not_taken", count=len(problems)), problems)
    if not asked:
        raise DataFileError(said("nothing_to_ask"))
    answers = list[tuple[float, ...]]()
    for first in range(0, len(asked), _AT_ONCE):
        part = {str(number): (ids, trie, None) for number, (ids, _) in enumerate(asked[first : first + _AT_ONCE])}
        with service.request(Terms()) as request:  # nobody else asks: there is room
            answers += [result.probabilities for result in request.classify_all(part).values()]
    return fit_to_gold(answers, [label for _, label in asked])


def _figures(title: str, tried: Sequence[_Tried], best: _Tried) -> Figures:
    headings = worded("head_instruction"), worded("head_examples"), worded("head_order"), worded("head_form")
    figures = worded("head_right"), worded("head_fitted"), worded("head_loss"), ""
    table = Figures(*headings, *figures, title=escape(title))
    for each in tried:
        way, fit = each.variant, each.fit
        order = in_terminal(way.order) if way.examples > 1 else "-"
        form = worded("row_plain") if way.is_plain else worded("row_chat")
        mark = worded("row_best") if each is best else ""
        table.add_row(
            str(way.instruction or worded("row_none")), str(way.examples), order, form,
            f"{fit.raw:.1%}", f"{fit.accuracy:.1%}", f"{fit.loss:.3f}", mark,
        )  # fmt: skip
    return table


def _write(folder: Path, task: Task, best: Variant) -> None:
    """Put the best examples and instruction into prompt.md. The form is not written: each start chooses it."""
    messages = best.chat.messages
    if messages == task.messages:
        tell(err, said("prompt_stays"))
        return
    file = folder / "prompt.md"
    text = file.read_text(encoding="utf-8-sig")
    head = re.match(r"\A---[ \t]*\r?\n.*?^---[ \t]*\r?\n", text, re.DOTALL | re.MULTILINE)
    assert head is not None, "it was loaded"
    written = head.group() + body_of(messages)
    with tempfile.TemporaryDirectory() as place:
        copy = shutil.copytree(folder, Path(place) / folder.name)
        (copy / "prompt.md").write_text(written, encoding="utf-8")
        assert load_task(copy).messages == messages, "what is written is what was tried"
    try:
        replace_file(folder / "prompt.md.bak", text.encode())
        replace_file(file, written.encode())
    except OSError as error:
        raise DataFileError(said("prompt_unwritable", file=file, strerror=error.strerror)) from None
    tell(err, said("prompt_written", file=file))
