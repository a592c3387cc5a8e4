"""`qwen-allinone serve`, `ask`, `check` and `doctor`."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer
from rich.progress import Progress

from qwen_allinone.cli import tables
from qwen_allinone.cli.asking import most_at_once
from qwen_allinone.cli.gold_cases import Outcome, check_task
from qwen_allinone.cli.terminal import err, exit_with, load_service, load_settings, out
from qwen_allinone.errors import QaioError
from qwen_allinone.shipped_files import SHIPPED
from qwen_allinone.tasks import Registry


def serve() -> None:
    """Start Gunicorn with gunicorn.conf.py and the QAIO_* settings."""
    load_settings()
    command = [sys.executable, "-m", "gunicorn", "-c", str(SHIPPED / "gunicorn.conf.py")]
    os.execv(sys.executable, command)


def ask(text: Annotated[str, typer.Argument(help="What to say")]) -> None:
    """Label a text and answer it, in this process."""
    service = load_service(load_settings())
    try:
        answer = service.chat(text)
    except QaioError as error:
        raise exit_with(str(error)) from None
    sentiment = answer.sentiment
    probability = max((sentiment.probabilities or {}).values())
    out.print(f"{sentiment.emoji or ''} {sentiment.label} ({probability:.2f})", highlight=False, markup=False)
    out.print(answer.reply.text, highlight=False, markup=False, soft_wrap=not out.is_terminal)


def check(
    tasks: Annotated[list[str] | None, typer.Argument(help="Tasks to check; all if none is named")] = None,
    wrong: Annotated[bool, typer.Option(help="List the cases that failed")] = True,
    seed: Annotated[int, typer.Option(help="Seed of sampled answers")] = 0,
    at_least: Annotated[float, typer.Option(help="Exit with 1 if a task passes a smaller share than this")] = 0.0,
) -> None:
    """Run the gold cases of the tasks (prompts/<task>/cases.yaml) and print a table."""
    settings = load_settings()
    registry = Registry.load(settings.prompts)
    names = tasks or [task.name for task in registry]
    try:
        cases = {name: registry.cases(name) for name in names}
    except QaioError as error:
        raise exit_with(str(error)) from None
    service = load_service(settings)
    outcomes: dict[str, list[Outcome]] = {}
    with Progress(console=err, transient=True) as progress:
        for name in names:
            done = check_task(service, name, cases[name], seed, most_at_once(settings))
            outcomes[name] = list(progress.track(done, total=len(cases[name]), description=name))
    out.print(tables.check_table(outcomes))
    if wrong:
        tables.print_failures(out, outcomes)
    if any(sum(o.passed for o in done) < at_least * len(done) for done in outcomes.values()):
        raise typer.Exit(1)


def doctor() -> None:
    """Print settings, model files, label tokens, threads, kernel and memory, and what to change."""
    settings = load_settings()
    out.print(tables.settings_table(settings))
    service = load_service(settings)
    tables.print_model(out, settings, service)
    tables.print_advice(out, settings, service)
