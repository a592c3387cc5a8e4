"""`qwen-allinone ask`, `check`, `doctor` and `download`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from qwen_allinone.cli import tables
from qwen_allinone.cli.asking import most_at_once
from qwen_allinone.cli.gold_cases import check_task
from qwen_allinone.cli.loaded_service import load_service
from qwen_allinone.cli.terminal import (
    AsJson,
    check_share,
    err,
    exit_with,
    load_settings,
    out,
    print_json,
    tell,
    worded,
)
from qwen_allinone.errors import QaioError, StartupError
from qwen_allinone.model import hub
from qwen_allinone.model.checkpoint import DEMO, is_folder
from qwen_allinone.service import Outcome
from qwen_allinone.tasks import Registry
from qwen_allinone.wording import said


def ask(text: Annotated[str, typer.Argument(help=worded("arg_text"))], as_json: AsJson = False) -> None:
    """Label a text and answer it, in this process."""
    service = load_service(load_settings())
    try:
        answer = service.chat(text)
    except QaioError as error:
        raise exit_with(error) from None
    sentiment = answer.sentiment
    if as_json:
        shown = {"sentiment": sentiment.label, "response": answer.reply.text, "probabilities": sentiment.probabilities}
        print_json(shown)
        return
    probability = max((sentiment.probabilities or {}).values())
    out.print(f"{sentiment.emoji or ''} {sentiment.label} ({probability:.2f})", highlight=False, markup=False)
    out.print(answer.reply.text, highlight=False, markup=False, soft_wrap=not out.is_terminal)


def check(
    tasks: Annotated[list[str] | None, typer.Argument(help=worded("arg_checked_tasks"))] = None,
    wrong: Annotated[bool, typer.Option(help=worded("opt_wrong_cases"))] = True,
    seed: Annotated[int, typer.Option(help=worded("opt_answer_seed"))] = 0,
    at_least: Annotated[float, typer.Option(help=worded("opt_least_share"))] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Run the gold cases of the tasks (prompts/<task>/cases.yaml) and print a table."""
    settings = load_settings()
    registry = Registry.load(settings.prompts)
    names = tasks or [task.name for task in registry]
    try:
        check_share("--at-least", at_least)
        cases = {name: registry.cases(name) for name in names}
    except QaioError as error:
        raise exit_with(error) from None
    # The bars of progress are for terminals; into a pipe this takes a minute or more without a word.
    tell(err, said("check_begins", cases=sum(map(len, cases.values())), tasks=len(cases)))
    service = load_service(settings)
    outcomes: dict[str, list[Outcome]] = {}
    with Progress(console=err, transient=True) as progress:
        for name in names:
            done = check_task(service, name, cases[name], seed, most_at_once(settings))
            outcomes[name] = list(progress.track(done, total=len(cases[name]), description=name))
    if as_json:
        print_json({"tasks": {name: tables.checked(done, wrong) for name, done in outcomes.items()}})
    else:
        out.print(tables.check_table(outcomes))
    if wrong and not as_json:
        tables.print_failures(out, outcomes)
    passed = {name: (sum(outcome.passed for outcome in done), len(done)) for name, done in outcomes.items()}
    below = [said("passed_of", task=n, passed=ok, cases=of) for n, (ok, of) in passed.items() if ok < at_least * of]
    if below:
        tell(err, said("tasks_below", least=f"{at_least:g}", tasks=below))
        raise typer.Exit(1)


def doctor() -> None:
    """Print settings, model files, label tokens, threads, kernel and memory, and what to change."""
    settings = load_settings()
    out.print(tables.settings_table(settings))
    service = load_service(settings)
    tables.print_model(out, settings, service)
    tables.print_advice(out, settings, service)


def download(
    model: Annotated[str | None, typer.Argument(help=worded("arg_hub_id"))] = None,
    to: Annotated[Path | None, typer.Option(help=worded("opt_to"))] = None,
    revision: Annotated[str | None, typer.Option(help=worded("opt_revision"))] = None,
) -> None:
    """Fetch a model from the hub, or from the mirror in HF_ENDPOINT, and compare it with what the hub says of it.

    What was cut off goes on where it was.
    """
    settings = load_settings()
    name, revision = model or settings.model, revision or settings.model_revision
    if name == DEMO or is_folder(name):
        raise exit_with(said("model_is_here", name=name))
    try:
        files = hub.files(name, revision, to)
        missing = sum(file.size for file in files if file.missing)
        place, free = hub.room(to)
        told = {"name": name, "revision": revision, "count": len(files)}
        tell(out, said("hub_files", **told, size=_megabytes(sum(file.size for file in files))))
        tell(out, said("hub_missing", place=place, size=_megabytes(missing)))
        if missing > free:
            raise exit_with(said("too_little_room", free=_megabytes(free)))
        folder = hub.downloaded(name, revision, to)
        with err.status(worded("hub_compared")):
            hub.verify(name, revision, folder)
    except StartupError as error:
        raise exit_with(error) from None
    tell(out, said("hub_complete", model=to or name))


def _megabytes(size: int) -> str:
    return f"{size / 1_000_000:,.1f} MB"
