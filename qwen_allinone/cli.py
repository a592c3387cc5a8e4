"""The command line: serve, ask, check, eval, calibrate, doctor, keys."""

from __future__ import annotations

import os
import sys
import time
from datetime import date
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from qwen_allinone import bootstrap, measuring, report
from qwen_allinone.access import keys
from qwen_allinone.checking import Outcome, check_task
from qwen_allinone.engine import Status
from qwen_allinone.errors import DataFileError, QaioError, SettingsError, StartupError
from qwen_allinone.service import AllInOne
from qwen_allinone.settings import Settings
from qwen_allinone.tasks import Calibration, Quality, Registry, Task
from qwen_allinone.telemetry import logs

app = typer.Typer(help="One small language model, many jobs.", no_args_is_help=True, add_completion=False)
keys_app = typer.Typer(
    help="API keys: new, list, remove. The service takes up changes by itself.", no_args_is_help=True
)
app.add_typer(keys_app, name="keys")
out = Console()
err = Console(stderr=True)

_PROJECT = Path(__file__).resolve().parents[1]

TaskName = Annotated[str, typer.Argument(help="A label task")]
Data = Annotated[Path, typer.Option(help="Labelled CSV, UTF-8, with a header")]
TextColumn = Annotated[str, typer.Option(help="Column of the input `text`; other inputs have their own names")]
LabelColumn = Annotated[str, typer.Option(help="Column of the right label")]
Map = Annotated[str, typer.Option("--map", help="The file's labels in the task's words: 1=正面,0=负面")]
Limit = Annotated[int, typer.Option(min=0, help="Only the first N rows; 0: all")]


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


@app.command("eval")
def evaluate(
    task: TaskName,
    data: Data,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    names: Map = "",
    limit: Limit = 0,
    wrong: Annotated[Path, typer.Option(help="Where the wrong rows go")] = Path("wrong.csv"),
    url: Annotated[str, typer.Option(help="Ask this running service, and not a model in this process")] = "",
    key_file: Annotated[Path | None, typer.Option(help="File with its API key or token, if it asks for one")] = None,
    at_least: Annotated[float, typer.Option(help="Exit with 1 if the accuracy is less than this")] = 0.0,
) -> None:
    """Compare the answers to labelled rows with their labels: accuracy, F1, confusion matrix, times, wrong rows."""
    settings = _settings()
    try:
        chosen = _label_task(settings, task)
        table = _table(chosen, data, text_column, label_column, names, limit)
        if url:
            ask = measuring.over_http(url, task, chosen.labels, _key(key_file))
        else:
            ask = measuring.in_process(_service(settings), task)
        began = time.perf_counter()
        asked = _ask_all(ask, table, settings, task)
        seconds = time.perf_counter() - began
        figures = measuring.figures_of(report.judged(asked), chosen.labels)
        mistaken = [each for each in asked if each.answer != each.row.label]
        measuring.write_wrong(wrong, mistaken)
    except QaioError as error:
        raise _quit(str(error)) from None
    report.print_evaluation(out, f"{task} on {data.name}", chosen, figures, asked, seconds)
    err.print(f"{len(mistaken)} wrong rows are in {escape(str(wrong))}", highlight=False)
    if figures.accuracy < at_least:
        raise typer.Exit(1)


@app.command()
def calibrate(
    task: TaskName,
    data: Data,
    text_column: TextColumn = "text",
    label_column: LabelColumn = "label",
    names: Map = "",
    limit: Limit = 0,
) -> None:
    """Fit a temperature to labelled rows, so that a probability is how often such answers are right."""
    settings = _settings()
    try:
        chosen = _label_task(settings, task)
        folder = settings.prompts / task
        if not measuring.is_writable(folder):
            raise DataFileError(f"{folder} cannot be written: make it writable, or work on a copy with QAIO_PROMPTS")
        table = _table(chosen, data, text_column, label_column, names, limit)
        service = _service(settings)
        fitted = measuring.fit(chosen, _ask_all(measuring.in_process(service, task), table, settings, task))
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
        file = measuring.write_calibration(folder, calibration)
    except QaioError as error:
        raise _quit(str(error)) from None
    report.print_calibration(out, f"{task} on {data.name}", fitted)
    err.print(f"kept in {escape(str(file))}: it holds from the next start on", highlight=False)


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


def _label_task(settings: Settings, name: str) -> Task:
    task = Registry.load(settings.prompts).get(name)
    if not task.labels:
        raise DataFileError(f"{name} is no label task: there is nothing to compare with labels")
    return task


def _key(file: Path | None) -> str | None:
    try:
        return file.read_text("utf-8").strip() if file else None
    except (OSError, UnicodeDecodeError) as error:
        raise DataFileError(f"{file} cannot be read ({error})") from None


def _table(task: Task, data: Path, text_column: str, label_column: str, names: str, limit: int) -> measuring.Table:
    """The rows of the file; what is wrong with the others is printed."""
    columns = [measuring.Column(name, text_column if name == "text" else name) for name in task.spec.inputs]
    if len(columns) == 1:
        columns = [measuring.Column(columns[0].input, text_column)]
    pairs = [pair.partition("=") for pair in names.split(",") if pair.strip()]
    if any(not sign or after.strip() not in task.labels for _, sign, after in pairs):
        raise DataFileError(f"--map {names}: write it as 1={task.labels[0]},0={task.labels[1]}")
    translated = {before.strip(): after.strip() for before, _, after in pairs}
    table = measuring.read_table(data, columns, label_column, task.labels, translated, limit)
    report.print_problems(err, f"rows of {data.name} that cannot be used", table.problems)
    return table


def _ask_all(ask: measuring.Ask, table: measuring.Table, settings: Settings, title: str) -> list[measuring.Asked]:
    """The answers there are; what kept the others from being answered is printed."""
    at_once = min(2 * settings.slots, settings.slots + settings.max_waiting)
    with Progress(console=err, transient=True) as progress:
        stream = measuring.ask_all(ask, table.rows, at_once)
        asked = list(progress.track(stream, total=len(table.rows), description=title))
    failed = [f"line {each.row.line}: {each.problem}" for each in asked if each.problem]
    report.print_problems(err, "rows that were not answered", failed)
    answered = [each for each in asked if not each.problem]
    if not answered:
        raise DataFileError("no row was answered")
    return answered


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
