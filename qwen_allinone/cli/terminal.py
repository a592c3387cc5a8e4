"""What commands need: the two consoles, the settings, a key from a file, an end with a message."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from qwen_allinone.errors import DataFileError, StartupError
from qwen_allinone.settings import Settings
from qwen_allinone.tasks import Registry
from qwen_allinone.wording import in_language, message_of, of_environment, said

UNWRAPPED = 10_000  # columns


def _console(stderr: bool) -> Console:
    """A pipe has no width: whoever reads its lines wants them whole."""
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=UNWRAPPED)


out, err = _console(stderr=False), _console(stderr=True)


def load_settings() -> Settings:
    try:
        settings = Settings.load()
        Registry.load(settings.prompts)
    except StartupError as error:
        raise exit_with(error) from None
    return settings


def in_terminal(problem: str | Exception) -> str:
    """A message, or an error's, in the language of the terminal."""
    message = message_of(problem) if isinstance(problem, Exception) else problem
    return in_language(message, of_environment(os.environ))


def worded(message: str, /, **values: Any) -> str:
    """The message of the catalogue called `message`, in the language of the terminal."""
    return in_terminal(said(message, **values))


def tell(console: Console, message: str) -> None:
    """A line for people, in the language of the terminal: whole, and nothing in it is markup."""
    console.print(in_terminal(message), highlight=False, markup=False, soft_wrap=True)


AsJson = Annotated[bool, typer.Option("--json", help=worded("opt_json"))]


def print_json(value: Any) -> None:
    """One line for programs: as it is, whatever the terminal is like."""
    typer.echo(json.dumps(value, ensure_ascii=False))


def key_of(file: Path | None) -> str | None:
    """The key in the file; no message quotes any of it."""
    if file is None:
        return None
    try:
        key = file.read_text("ascii").strip()
    except OSError as error:
        raise DataFileError(said("file_unreadable", file=file, error=error.strerror)) from None
    except UnicodeDecodeError:
        key = ""
    if not key.isprintable() or not key or " " in key:
        raise DataFileError(said("no_key_in_file", file=file))
    return key


def check_share(option: str, value: float) -> None:
    """Raises DataFileError unless the option's value is a share: 80 for 80 % could never be reached."""
    if not 0 <= value <= 1:
        raise DataFileError(said("share_form", option=option, value=f"{value:g}"))


def exit_with(problem: str | Exception) -> typer.Exit:
    """The end of a command, once it has said why in the language of the terminal."""
    message = in_terminal(problem)
    err.print(f"[bold red]qwen-allinone:[/] {escape(message)}", highlight=False, soft_wrap=True)
    return typer.Exit(2)
