"""The command line: serve, ask, check, doctor, keys."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from qwen_allinone import bootstrap, report
from qwen_allinone.access import keys
from qwen_allinone.allinone import AllInOne
from qwen_allinone.checking import Outcome, check_task
from qwen_allinone.engine import Status
from qwen_allinone.errors import QaioError, SettingsError, StartupError
from qwen_allinone.settings import Settings
from qwen_allinone.tasks import Registry
from qwen_allinone.telemetry import logs

app = typer.Typer(help="One small language model, many jobs.", no_args_is_help=True, add_completion=False)
keys_app = typer.Typer(
    help="API keys: new, list, remove. The service takes up changes by itself.", no_args_is_help=True
)
app.add_typer(keys_app, name="keys")
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


@keys_app.command("new")
def new_key(name: Annotated[str, typer.Argument(help="Whose key it is; appears in logs")]) -> None:
    """Make a key, print it this once, and put its hash into QAIO_API_KEYS_FILE."""
    try:
        key = keys.add(_keys_file(), name)
    except StartupError as error:
        raise _quit(str(error)) from None
    err.print(f"The key of {name}. It is shown only now; the file holds its hash.", highlight=False)
    typer.echo(key)


@keys_app.command("list")
def list_keys() -> None:
    """Print the names of all who have a key."""
    try:
        names = keys.names(_keys_file())
    except StartupError as error:
        raise _quit(str(error)) from None
    for name in names:
        typer.echo(name)


@keys_app.command("remove")
def remove_key(name: Annotated[str, typer.Argument(help="Whose key no longer holds")]) -> None:
    """Take a key out of QAIO_API_KEYS_FILE; from the next request on it does not hold."""
    try:
        keys.remove(_keys_file(), name)
    except StartupError as error:
        raise _quit(str(error)) from None


def _keys_file() -> Path:
    file = Settings.load().api_keys_file
    if file is None:
        raise SettingsError("QAIO_API_KEYS_FILE is not set: name the file that holds the hashes of the keys")
    return file


def _settings() -> Settings:
    try:
        settings = Settings.load()
        Registry.load(settings.prompts)
    except StartupError as error:
        raise _quit(str(error)) from None
    return settings


def _service(settings: Settings) -> AllInOne:
    """The service with its model loaded, or an exit that says why not."""
    logs.configure(settings.model_copy(update={"log_level": "error"}))
    service = bootstrap.build_service(settings)
    with err.status(f"loading {settings.model}"):
        status = service.engine.wait_until_settled()
    if status is not Status.READY:
        raise _quit(service.engine.problem)
    return service


def _quit(message: str) -> typer.Exit:
    err.print(f"[bold red]qwen-allinone:[/] {escape(message)}", highlight=False, soft_wrap=True)
    return typer.Exit(2)
