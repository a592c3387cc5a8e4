"""`qwen-allinone keys`: make, list and remove API keys."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qwen_allinone.access import keys
from qwen_allinone.cli.terminal import err, exit_with, tell, worded
from qwen_allinone.errors import SettingsError, StartupError
from qwen_allinone.settings import Settings
from qwen_allinone.wording import said


def new_key(name: Annotated[str, typer.Argument(help=worded("arg_new_key"))]) -> None:
    """Make a key, print it this once, and put its hash into QAIO_API_KEYS_FILE."""
    try:
        key = keys.add(_keys_file(), name)
    except StartupError as error:
        raise exit_with(error) from None
    tell(err, said("key_shown_once", name=name))
    typer.echo(key)


def list_keys() -> None:
    """Print the names of all who have a key."""
    try:
        names = keys.names(_keys_file())
    except StartupError as error:
        raise exit_with(error) from None
    for name in names:
        typer.echo(name)


def remove_key(name: Annotated[str, typer.Argument(help=worded("arg_old_key"))]) -> None:
    """Take a key out of QAIO_API_KEYS_FILE; from the next request on it does not hold."""
    try:
        keys.remove(_keys_file(), name)
    except StartupError as error:
        raise exit_with(error) from None


def _keys_file() -> Path:
    file = Settings.load().api_keys_file
    if file is None:
        raise SettingsError(said("keys_file_not_set"))
    return file
