"""`qwen-allinone prompts`: which versions were in force, whether a changed one is worse, reload, one step back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from qwen_allinone.cli.prompt_trial import Compared, compare
from qwen_allinone.cli.terminal import AsJson, err, exit_with, in_terminal, load_settings, out, print_json, tell, worded
from qwen_allinone.errors import DataFileError, QaioError
from qwen_allinone.serving.succession import ask_to_reload
from qwen_allinone.settings import Settings
from qwen_allinone.tasks import Registry, Versions
from qwen_allinone.wording import said

# Why a version came into force, by what is kept of that.
_WHY = {"start": said("at_start"), "tried": said("was_tried"), "forced": said("was_forced"), "back": said("went_back")}


def _in_one_line(command: Callable[..., None]) -> Callable[..., None]:
    """What cannot be read or written ends with one line."""

    @wraps(command)
    def run(*given: object, **named: object) -> None:
        try:
            command(*given, **named)
        except QaioError as error:
            raise exit_with(error) from None
        except OSError as error:
            raise exit_with(said("prompts_unreadable", filename=error.filename, strerror=error.strerror)) from None

    return run


@_in_one_line
def list_versions(as_json: AsJson = False) -> None:
    """Print the versions that came into force, newest first."""
    versions = Versions(Settings.load().prompts_kept)
    entries = [entry.model_dump() for entry in reversed(versions.history())]
    if not entries:  # an empty table would read as if no prompt had changed
        raise exit_with(said("no_versions_kept", root=versions.root.absolute()))
    if as_json:
        print_json({"versions": entries})
        return
    table = Table(worded("head_version"), worded("head_since"), worded("head_why"))
    for number, entry in enumerate(entries):
        since = datetime.fromtimestamp(entry["at"]).isoformat(" ", "seconds")
        table.add_row(entry["version"] + (" *" if number == 0 else ""), since, in_terminal(_WHY[entry["why"]]))
    out.print(table)


@_in_one_line
def try_version(
    version: Annotated[str, typer.Argument(help=worded("arg_version"))] = "",
    against: Annotated[str, typer.Option(help=worded("opt_against"))] = "",
    as_json: AsJson = False,
) -> None:
    """Run the gold cases of all that has changed since the version in force. Exits with 1 if a reload would be refused.

    Prints each changed task's share of right answers, before and now.
    """
    settings = load_settings()
    versions = Versions(settings.prompts_kept)
    prompts = _kept(versions, version) if version else settings.prompts
    if against:
        _kept(versions, against)
    refused = _tried(settings, versions, prompts, against or versions.current, as_json)
    if refused:
        raise typer.Exit(1)


@_in_one_line
def reload(
    force: Annotated[bool, typer.Option(help=worded("opt_force"))] = False,
) -> None:
    """Have the running service take QAIO_PROMPTS as it is now, if it is not worse than what is in force."""
    settings = load_settings()
    versions = Versions(settings.prompts_kept)
    version = versions.keep(settings.prompts)
    if not versions.is_accepted(version):
        if not force and _tried(settings, versions, versions.folder(version), versions.current, False):
            raise exit_with(said("not_reloaded"))
        versions.accept(version, "forced" if force else "tried")
    _take_over(versions, version)


@_in_one_line
def back() -> None:
    """Go back to the version that was in force before: QAIO_PROMPTS becomes what it was, and the service reloads."""
    settings = Settings.load()
    versions = Versions(settings.prompts_kept)
    version = versions.before()
    if version is None:
        raise exit_with(said("no_earlier_prompts", root=versions.root))
    versions.restore(version, settings.prompts)
    versions.accept(version, "back")
    _take_over(versions, version)


def _kept(versions: Versions, version: str) -> Path:
    """Where a version lies; raises DataFileError if it is not kept."""
    folder = versions.folder(version)
    if not folder.is_dir():
        raise DataFileError(said("no_such_version", version=version, root=versions.root))
    return folder


def _take_over(versions: Versions, version: str) -> None:
    master = ask_to_reload(versions.root)
    if master is None:
        tell(out, said("next_start_takes", version=version))
    else:
        tell(out, said("service_takes", version=version, master=master))


def _tried(settings: Settings, versions: Versions, prompts: Path, against: str | None, as_json: bool) -> list[str]:
    """What a reload would be refused for. Prints what was found."""
    new = Registry.load(prompts)
    compared = compare(settings, Registry.load(versions.folder(against)), new) if against else []
    refused = [lost for lost in (each.lost(settings.prompts_may_lose) for each in compared) if lost]
    if as_json:
        shown = {each.task: {"cases": each.cases, "before": each.before, "now": each.now} for each in compared}
        print_json({"version": new.version, "tasks": shown, "refused": refused})
    else:
        _print(compared, refused)
    return refused


def _print(compared: list[Compared], refused: list[str]) -> None:
    if not compared:
        tell(out, said("no_task_changed"))
        return
    headings = worded("head_task"), worded("head_cases"), worded("head_before"), worded("head_now")
    table = Table(*headings, title=worded("head_gold_cases"))
    for each in compared:
        table.add_row(each.task, str(each.cases), f"{each.before:.1%}", f"{each.now:.1%}")
    out.print(table)
    for line in refused:
        tell(err, said("refused", problem=line))
