"""The command line: serve, ask, check, doctor."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from qwen_allinone import bootstrap, report
from qwen_allinone.allinone import AllInOne
from qwen_allinone.checking import Outcome, check_task
from qwen_allinone.engine import Status
from qwen_allinone.errors import QaioError, StartupError
from qwen_allinone.settings import Settings
from qwen_allinone.tasks import Registry

app = typer.Typer(help="One small language model, many jobs.", no_args_is_help=True, add_completion=False)
out = Console()
err = Console(stderr=True)

_PROJECT = Path(__file__).resolve().parents[1]


@app.command()
def serve() -> None:
    """Start Gunicorn with gunicorn.conf.py and the QAIO_* settings."""
    _settings()
    config = _PROJECT / "gunicorn.conf.py"
    os.execv(sys.executable, [sys.executable, "-m", "gunicorn", "-c", str(config)])


@app.command()
def ask(text: Annotated[str, typer.Argument(help="What to say")]) -> None:
    """Label a text and answer it, in this process."""
    service = _service(_settings())
    try:
        answer = service.chat(text)
    except QaioError as error:
        raise _quit(str(error)) from None
    sentiment = answer.sentiment
    probability = max((sentiment.probabilities or {}).values())
    out.print(f"{sentiment.emoji or ''} {sentiment.label} ({probability:.2f})", highlight=False, markup=False)
    out.print(answer.reply.text, highlight=False, markup=False)


@app.command()
def check(
    tasks: Annotated[list[str] | None, typer.Argument(help="Tasks to check; all if none is named")] = None,
    wrong: Annotated[bool, typer.Option(help="List the cases that failed")] = True,
    seed: Annotated[int, typer.Option(help="Seed of sampled answers")] = 0,
    at_least: Annotated[float, typer.Option(help="Exit with 1 if a task passes a smaller share than this")] = 0.0,
) -> None:
    """Run the gold cases of the tasks (prompts/<task>/cases.yaml) and print a table."""
    settings = _settings()
    registry = Registry.load(settings.prompts)
    names = tasks or [task.name for task in registry]
    try:
        cases = {name: registry.cases(name) for name in names}
    except QaioError as error:
        raise _quit(str(error)) from None
    service = _service(settings)
    outcomes: dict[str, list[Outcome]] = {}
    with Progress(console=err, transient=True) as progress:
        for name in names:
            done = check_task(service, name, cases[name], seed)
            outcomes[name] = list(progress.track(done, total=len(cases[name]), description=name))
    out.print(report.check_table(outcomes))
    if wrong:
        report.print_failures(out, outcomes)
    if any(sum(o.passed for o in done) < at_least * len(done) for done in outcomes.values()):
        raise typer.Exit(1)


@app.command()
def doctor() -> None:
    """Print settings, model files, label tokens, threads, kernel and memory, and what to change."""
    settings = _settings()
    out.print(report.settings_table(settings))
    service = _service(settings)
    report.print_model(out, settings, service)
    report.print_advice(out, settings, service)


def _settings() -> Settings:
    try:
        settings = Settings.load()
        Registry.load(settings.prompts)
    except StartupError as error:
        raise _quit(str(error)) from None
    return settings


def _service(settings: Settings) -> AllInOne:
    """The service with its model loaded, or an exit that says why not."""
    bootstrap.configure_logging(settings.model_copy(update={"log_level": "error"}))
    service = bootstrap.build_service(settings)
    with err.status(f"loading {settings.model}"):
        status = service.engine.wait_until_settled()
    if status is not Status.READY:
        raise _quit(service.engine.problem)
    return service


def _quit(message: str) -> typer.Exit:
    err.print(f"[bold red]qwen-allinone:[/] {message}", highlight=False)
    return typer.Exit(2)
