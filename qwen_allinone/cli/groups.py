"""Groups of commands, each of which is imported when somebody asks for it."""

from __future__ import annotations

import sys
from collections import UserDict
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import typer
from typer import core
from typer.exceptions import TyperException
from typer.main import get_command

from qwen_allinone.cli.help_texts import Command, Speaking, refused
from qwen_allinone.cli.terminal import UNWRAPPED, out, worded


class _Later(UserDict[str, Any]):
    """Commands by name; in the place of one that nobody has asked for yet, where it is and what it does.

    Most commands need torch, whose import takes seconds: `serve`, `keys` and `--version` need not wait for that.
    """

    def __getitem__(self, name: str) -> Any:
        if isinstance(command := self.data[name], tuple):
            command = self.data[name] = _imported(name, *command)
        return command

    def named(self) -> dict[str, Any]:
        """What a list shows of them, which needs no import."""
        return {
            name: Command(name=name, help=command[1]) if isinstance(command, tuple) else command
            for name, command in self.data.items()
        }


class _Group(Speaking, core.TyperGroup):
    """A group that speaks as the terminal does."""

    later: Mapping[str, tuple[str, str]]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands = self._all = _Later({**self.later, **self.commands})

    def main(self, *given: Any, **named: Any) -> Any:
        """Run a whole command line, and end the process."""
        try:
            status = super().main(*given, **named | {"standalone_mode": False})
        except TyperException as error:
            status = refused(error).exit_code
        sys.exit(status)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self.commands = self._all.named()
        super().format_help(ctx, formatter)


def group(about: str, commands: Mapping[str, tuple[str, str]]) -> typer.Typer:
    """A group with boxes on a terminal; a pipe has each option on a line, which is not wrapped.

    `commands`: by name, where the function is (`module:function` of this room) and what it does.
    """
    return typer.Typer(
        cls=type("Group", (_Group,), {"later": commands}),
        help=about,
        no_args_is_help=True,
        subcommand_metavar=worded("subcommand_metavar"),
        **_shown(),
    )


def _imported(name: str, place: str, about: str) -> Any:
    module, _, function = place.partition(":")
    run = getattr(import_module(f"{__package__}.{module}"), function)
    alone = typer.Typer(**_shown())
    alone.command(name, cls=Command, help=about, options_metavar=worded("options_metavar"))(run)
    return get_command(alone)


def _shown() -> dict[str, Any]:
    return {
        "add_completion": False,
        "rich_markup_mode": "rich" if out.is_terminal else None,
        "context_settings": {} if out.is_terminal else {"terminal_width": UNWRAPPED},
        "options_metavar": worded("options_metavar"),
    }
