"""Tables and advice for people at a terminal."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qwen_allinone.cli.asking import AnsweredRow
from qwen_allinone.cli.figures import Figures, percentile
from qwen_allinone.cli.temperature import FittedTemperature
from qwen_allinone.cli.terminal import in_terminal, worded
from qwen_allinone.host import available_cores, compute_threads, memory_limit, resident_bytes
from qwen_allinone.model.qwen2 import Qwen2
from qwen_allinone.service import Outcome, Service
from qwen_allinone.settings import PREFIX, Settings
from qwen_allinone.tasks import Task
from qwen_allinone.wording import of_environment, one_of
from qwen_allinone.wording.of_settings import OF_SETTINGS

_MIB = 1024 * 1024
_MOST_PROBLEMS = 10
_LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")  # of a page beside settings.md, as the documentation has it


def check_table(outcomes: Mapping[str, list[Outcome]]) -> Table:
    """Task, cases, passed, share."""
    headings = worded("head_task"), worded("head_cases"), worded("head_passed"), worded("head_share")
    table = Table(*headings, title=worded("head_gold_cases"))
    for name, done in outcomes.items():
        passed = sum(outcome.passed for outcome in done)
        share = f"{passed / len(done):.1%}" if done else "-"
        table.add_row(name, str(len(done)), str(passed), share)
    return table


def checked(done: Sequence[Outcome], wrong: bool) -> dict[str, Any]:
    """The same of one task for programs, with its failures if `wrong`."""
    figures: dict[str, Any] = {"cases": len(done), "passed": sum(outcome.passed for outcome in done)}
    if wrong:
        failed = (outcome for outcome in done if not outcome.passed)
        figures["failed"] = [{"inputs": o.case.inputs, "answer": o.answer, "problem": o.problem} for o in failed]
    return figures


def print_failures(console: Console, outcomes: Mapping[str, list[Outcome]]) -> None:
    """Each case that failed, with the answer given."""
    for name, done in outcomes.items():
        for outcome in done:
            if not outcome.passed:
                given = " | ".join(outcome.case.inputs.values())
                why = escape(in_terminal(outcome.problem))
                console.print(f"[red]{name}[/] {escape(given)} -> {escape(outcome.answer)} ({why})")


def print_evaluation(
    console: Console, title: str, task: Task, figures: Figures, answered: Sequence[AnsweredRow], seconds: float
) -> None:
    """Figures, F1 of each label, the confusion matrix, times of single answers."""
    table = Table(worded("head_figure"), worded("head_value"), title=escape(title))
    for name, value in _quality(figures).items():
        table.add_row(name, value)
    for label, f1 in figures.f1.items():
        table.add_row(worded("row_f1", label=escape(label)), f"{f1:.4f}")
    times = [each.seconds * 1000 for each in answered]
    for share in (0.5, 0.95, 0.99):
        table.add_row(worded("row_latency", share=f"{share * 100:g}"), f"{percentile(times, share):.1f} ms")
    table.add_row(worded("row_speed"), f"{len(answered) / seconds:.1f}")
    console.print(table)
    console.print(_confusion(task, figures))


def print_calibration(console: Console, title: str, fitted: FittedTemperature) -> None:
    """Figures before and after, and the temperature."""
    table = Table(worded("head_figure"), worded("head_before"), worded("head_after"), title=escape(title))
    after = _quality(fitted.after)
    for name, value in _quality(fitted.before).items():
        table.add_row(name, value, after[name])
    table.add_row(worded("row_temperature"), "1", f"{fitted.temperature:.4f}")
    console.print(table)
    if fitted.at_its_limit:
        console.print(f"- {worded('temperature_at_limit')}")


def print_problems(console: Console, title: str, problems: Sequence[str]) -> None:
    """The first ten, below a title that says how many there are."""
    if problems:
        console.print(f"[yellow]{escape(in_terminal(title))}[/]", highlight=False)
        for problem in problems[:_MOST_PROBLEMS]:
            console.print(f"  {in_terminal(problem)}", highlight=False, markup=False)
        if len(problems) > _MOST_PROBLEMS:
            console.print("  ...")


def _quality(figures: Figures) -> dict[str, str]:
    return {
        worded("row_rows"): str(figures.rows),
        worded("row_accuracy"): f"{figures.accuracy:.4f}",
        worded("row_macro_f1"): f"{figures.macro_f1:.4f}",
        worded("row_ece"): f"{figures.ece:.4f}",
    }


def _confusion(task: Task, figures: Figures) -> Table:
    """A row for each right label, a column for each answer."""
    unknown = task.spec.output.unknown
    answers = [*task.labels, *([unknown.name] if unknown else [])]
    headings = (worded("head_answered", answer=escape(answer)) for answer in answers)
    table = Table(worded("head_right_label"), *headings, title=worded("head_confusion"))
    for label in task.labels:
        table.add_row(escape(label), *(str(figures.confusion[label, answer]) for answer in answers))
    return table


def settings_table(settings: Settings) -> Table:
    """Every setting with its value; those that differ from the default are marked."""
    table = Table(worded("head_setting"), worded("head_value"), worded("head_meaning"), title=worded("head_settings"))
    language = of_environment(os.environ)
    for field in Settings.model_fields:
        value, meaning = getattr(settings, field), one_of(OF_SETTINGS[field], language)
        mark = "*" if field in settings.model_fields_set else ""
        table.add_row(f"{PREFIX}{field.upper()}{mark}", escape(str(value)), escape(_LINK.sub(r"docs/\1", meaning)))
    return table


def print_model(console: Console, settings: Settings, service: Service) -> None:
    """What was loaded and how the tasks look in its tokens."""
    codec, model = service.codec, _model(service)
    config = model.config
    table = Table(worded("head_what"), worded("head_value"), title=worded("head_model"))
    table.add_row(worded("row_folder"), escape(str(codec.folder)))
    for file in sorted(codec.folder.iterdir()):
        table.add_row(f"  {escape(file.name)}", f"{file.stat().st_size / _MIB:.1f} MiB")
    table.add_row(worded("row_layers"), f"{config.num_hidden_layers} x {config.hidden_size}, {config.vocab_size}")
    table.add_row(worded("row_heads"), f"{config.num_attention_heads} / {config.num_key_value_heads}")
    table.add_row(worded("row_kernel"), f"{model.kernel}, {settings.weights}")
    table.add_row(worded("row_drafts"), _drafts(service))
    table.add_row(worded("row_stop_ids"), str(sorted(codec.stop_ids)))
    table.add_row(worded("row_cores"), f"{available_cores():g}, {_threads(settings)}")
    table.add_row(worded("row_memory"), f"{resident_bytes() / _MIB:.0f} MiB")
    kv = model.kv_bytes_per_token * settings.kv_tokens
    table.add_row(worded("row_keys_and_values", count=settings.kv_tokens), f"{kv / _MIB:.0f} MiB")
    for task in service.registry:
        for label in task.labels:
            name = worded("row_tokens", task=task.name, label=escape(label))
            table.add_row(name, str(codec.tokenizer.encode(label)))
    for name, fit in service.gold_fits().items():
        raw, fitted = f"{fit.raw:.0%}", f"{fit.accuracy:.0%}"
        right = raw if fit.prior is None else worded("row_fitted", raw=raw, fitted=fitted)
        table.add_row(worded("row_gold_cases", task=name, count=fit.cases), right)
    console.print(table)


def _drafts(service: Service) -> str:
    drafting = service.engine.drafting
    on = worded("drafts_on") if drafting and drafting.pays else worded("drafts_off")
    return f"{on}, {drafting.price:.0%}" if drafting else on


def _model(service: Service) -> Qwen2:
    model = service.engine.model
    assert model is not None, "the doctor waits until the model is loaded"
    return model


def print_advice(console: Console, settings: Settings, service: Service) -> None:
    """What would be worth changing."""
    advice = list(_advice(settings, service)) or [worded("nothing_to_change")]
    for line in advice:
        console.print(f"- {escape(line)}")


def _advice(settings: Settings, service: Service) -> Iterator[str]:
    cores = available_cores()
    if settings.workers * _threads(settings) > max(1, cores):
        yield worded("too_many_threads", workers=settings.workers, threads=_threads(settings), cores=f"{cores:g}")
    kv = _model(service).kv_bytes_per_token * settings.kv_tokens
    need = settings.workers * (resident_bytes() + kv)
    limit = memory_limit()
    if need > limit:
        told = {"need": f"{need / _MIB:.0f}", "limit": f"{limit / _MIB:.0f}"}
        yield worded("too_much_memory", workers=settings.workers, **told)
    if _model(service).kernel == "dense":
        yield worded("plain_products")
    for name, fit in service.gold_fits().items():
        if fit.guesses:
            yield worded("only_guesses", task=name)
    if settings.model == "demo":
        yield worded("demo_stands_in")


def _threads(settings: Settings) -> int:
    return compute_threads(settings.threads, settings.workers)
