"""`qwen-allinone tune`: teaches a checkpoint an adapter for one task, from rows whose right answer is known."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table as Figures

from qwen_allinone.bootstrap import public_name
from qwen_allinone.cli import tables
from qwen_allinone.cli.labelled_commands import Data, LabelColumn, Limit, Map, TextColumn, labelled_table
from qwen_allinone.cli.labelled_rows import Row
from qwen_allinone.cli.result_files import is_writable
from qwen_allinone.cli.terminal import err, exit_with, load_settings, out, tell, worded
from qwen_allinone.engine.tuning import Example, Plan, Quality, Tuner
from qwen_allinone.errors import DataFileError, QaioError, RequestError, TuningError
from qwen_allinone.host import compute_threads
from qwen_allinone.model import checkpoint
from qwen_allinone.model.config import ModelConfig
from qwen_allinone.model.tokenizer import Tokenizer
from qwen_allinone.model.weights import fingerprint
from qwen_allinone.service import FittedTask, fit_task
from qwen_allinone.settings import Settings
from qwen_allinone.tasks import ADAPTER_CONFIG, Registry, Task
from qwen_allinone.wording import said

_HELD_OUT = 5  # of so many rows one is held out, where there is no file of them
_FEWEST = 8


def tune(
    task: Annotated[str, typer.Argument(help=worded("arg_taught_task"))],
    data: Data,
    base: Annotated[str, typer.Option(help=worded("opt_base"))] = "",
    out_folder: Annotated[Path | None, typer.Option("--out", help=worded("opt_adapter_out"))] = None,
    held_out: Annotated[Path | None, typer.Option(help=worded("opt_held_out"))] = None,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    names: Map = "",
    limit: Limit = 0,
    rank: Annotated[int, typer.Option(min=1, max=256, help=worded("opt_rank"))] = 8,
    epochs: Annotated[int, typer.Option(min=1, max=100, help=worded("opt_epochs"))] = 5,
    learning_rate: Annotated[float, typer.Option(min=1e-6, max=1e-2, help=worded("opt_learning_rate"))] = 5e-4,
    seed: Annotated[int, typer.Option(min=0, help=worded("opt_row_seed"))] = 0,
    overwrite: Annotated[bool, typer.Option("--replace", help=worded("opt_replace"))] = False,
) -> None:
    """Teach the model an adapter (LoRA) for one task, from labelled rows. The best so far is kept, even at Ctrl-C."""
    settings = load_settings()
    try:
        chosen = _tunable(Registry.load(settings.prompts).get(task))
        folder = _free_folder(out_folder or settings.prompts / task, overwrite)
        rows, measured = _rows(chosen, data, held_out, text_column, label_column, names, limit, seed)
        source = checkpoint.find(base or settings.model, settings.model_revision)
        fitted = _fitted(chosen, source, settings)
        examples, unseen = _examples(fitted, source, rows), _examples(fitted, source, measured)
        threads = compute_threads(settings.threads, 1)
        plan = Plan(rank=rank, epochs=epochs, learning_rate=learning_rate, seed=seed, threads=threads)
        tell(err, said("rows_to_learn", count=len(examples), unseen=len(unseen)))
        tuner = Tuner(source, public_name(base or settings.model), fingerprint(source), fitted.trie, plan)
        began = time.perf_counter()
        found = _teach(tuner, examples, unseen, folder)
    except QaioError as error:
        raise exit_with(error) from None
    out.print(_figures(worded("head_held_out", task=task, count=len(unseen)), found, time.perf_counter() - began))
    if not found.kept:
        raise exit_with(said("no_better_epoch"))
    tell(err, said("adapter_kept", folder=folder))


class _Found:
    """How the held-out rows were answered, epoch by epoch; `kept`: the number of the best that was written, 0: none."""

    def __init__(self) -> None:
        self.qualities: list[Quality] = []
        self.kept = 0

    def is_best(self, quality: Quality) -> bool:
        self.qualities.append(quality)
        better = len(self.qualities) > 1 and quality.beats(self.qualities[self.kept])
        if better:
            self.kept = len(self.qualities) - 1
        return better


def _teach(tuner: Tuner, examples: Sequence[Example], held_out: Sequence[Example], folder: Path) -> _Found:
    """Go through the epochs, or as many as there are before Ctrl-C, and write each that is the best so far."""
    found = _Found()

    def hear(done: int, rounds: int) -> None:
        progress.update(bar, completed=done, total=rounds)

    with Progress(console=err, transient=True) as progress:
        bar = progress.add_task(worded("measuring"), total=None)
        try:
            for quality in tuner.epochs(examples, held_out, hear):
                if found.is_best(quality):
                    tuner.save(folder)
                progress.update(bar, description=_told(quality))
        except KeyboardInterrupt:
            tell(err, said("ended_early"))
    if not found.qualities:
        raise TuningError(said("ended_unmeasured"))
    return found


def _told(quality: Quality) -> str:
    loss = f"{quality.loss:.3f}"
    if quality.accuracy is None:
        return worded("loss_now", loss=loss)
    return worded("right_now", right=f"{quality.accuracy:.1%}", loss=loss)


def _figures(title: str, found: _Found, seconds: float) -> Figures:
    headings = worded("head_epoch"), worded("head_right"), worded("head_loss"), ""
    caption = worded("head_minutes", minutes=f"{seconds / 60:.1f}")
    table = Figures(*headings, title=escape(title), caption=caption)
    for epoch, quality in enumerate(found.qualities):
        right = "-" if quality.accuracy is None else f"{quality.accuracy:.1%}"
        kept = worded("row_kept") if epoch and epoch == found.kept else ""
        table.add_row(str(epoch or worded("row_before")), right, f"{quality.loss:.3f}", kept)
    return table


def _tunable(task: Task) -> Task:
    if task.spec.output.kind not in ("label", "text"):
        raise DataFileError(said("kind_not_teachable", name=task.name, kind=task.spec.output.kind))
    return replace(task, calibration=None)  # which is about probabilities, not about what is right


def _free_folder(folder: Path, overwrite: bool) -> Path:
    if (folder / ADAPTER_CONFIG).exists() and not overwrite:
        raise TuningError(said("adapter_there_already", folder=folder))
    if folder.exists() and not is_writable(folder):
        raise TuningError(said("adapter_unwritable", folder=folder))
    return folder


def _rows(
    task: Task, data: Path, held_out: Path | None, text: str, label: str, names: str, limit: int, seed: int
) -> tuple[list[Row], list[Row]]:
    """The rows to learn from and those to measure on, none of which is learnt from."""
    rows = labelled_table(task, data, text, label, names, limit).rows
    if held_out:
        measured = labelled_table(task, held_out, text, label, names, 0).rows
        known = {tuple(row.inputs.values()) for row in measured}
        rows = [row for row in rows if tuple(row.inputs.values()) not in known]
    else:
        texts = list(dict.fromkeys(tuple(row.inputs.values()) for row in rows))
        random.Random(seed).shuffle(texts)
        unseen = set(texts[: len(texts) // _HELD_OUT])
        measured = [row for row in rows if tuple(row.inputs.values()) in unseen]
        rows = [row for row in rows if tuple(row.inputs.values()) not in unseen]
    if len(rows) < _FEWEST or not measured:
        raise DataFileError(said("too_few_to_learn_from", data=data, count=len(rows), count2=len(measured)))
    return rows, measured


def _fitted(task: Task, source: Path, settings: Settings) -> FittedTask:
    """The task in the tokens of the checkpoint, which is not loaded for that."""
    context = min(settings.context, ModelConfig.load(source).max_position_embeddings)
    return fit_task(task, Tokenizer.load(source), context, identity="", model_id="")


def _examples(fitted: FittedTask, source: Path, rows: Sequence[Row]) -> list[Example]:
    """Each row as the prompt that the service makes of it and the tokens that are to follow; what is wrong is told."""
    tokenizer, examples, problems = fitted.tokenizer, list[Example](), list[str]()
    ends = "<|im_end|>" if fitted.task.is_chat else "<|endoftext|>"
    end = tokenizer.control_id(ends) or min(checkpoint.stop_ids(source, tokenizer))
    for row in rows:
        try:
            prompt = fitted.prompt(row.inputs, {})
        except RequestError as error:
            problems.append(said("at_line", line=row.line, problem=error))
            continue
        if fitted.trie:
            answer = fitted.trie.labels[fitted.task.labels.index(row.label)]
        else:
            answer = (*tokenizer.encode(row.label), end)
        if len(prompt) + len(answer) > fitted.context:
            problems.append(said("at_line", line=row.line, problem=said("above_context", context=fitted.context)))
            continue
        examples.append(Example(tuple(prompt), answer))
    tables.print_problems(err, said("rows_not_taken", count=len(problems)), problems)
    if not examples:
        raise DataFileError(said("nothing_to_learn"))
    return examples
