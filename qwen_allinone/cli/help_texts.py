"""`--help`, and what is wrong with a command line, in the language of the terminal: what typer says itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import typer
from pydantic import ValidationError
from rich.highlighter import RegexHighlighter
from rich.text import Text
from typer import core
from typer.exceptions import TyperException

from qwen_allinone.cli.terminal import err, exit_with, in_terminal, worded
from qwen_allinone.wording import complaint, said
from qwen_allinone.wording.of_commands import OF_COMMANDS

# What typer says of a command line, word for word in the catalogue; a message that goes on stands before its beginning.
_COMPLAINTS = (
    "no_such_command_but",
    "no_such_command",
    "no_such_option_but",
    "no_such_option",
    "missing_command",
    "missing_argument",
    "missing_option",
    "bad_value",
    "not_one_of",
    "extra_arguments",
    "option_needs_value",
    "option_takes_none",
)


class Speaking:
    """What typer has no word of its caller for: the usage, the line on --help, the headings."""

    def get_help_option(self, ctx: Any) -> Any:
        option = super().get_help_option(ctx)  # type: ignore[misc]  # of the class that is mixed with
        if option is not None:
            option.help = worded("opt_help")
        return option

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        pieces = self.collect_usage_pieces(ctx)  # type: ignore[attr-defined]  # the same
        formatter.write_usage(ctx.command_path, " ".join(pieces), prefix=worded("usage"))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        _prepare_typer()
        super().format_help(ctx, formatter)  # type: ignore[misc]  # the same


class Command(Speaking, core.TyperCommand):
    """A command whose --help speaks as the terminal does."""


def refused(error: TyperException) -> typer.Exit:
    """The end of a command line that typer does not take, once it has been said why and where help is."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":  # whose message is the help
        typer.echo(error.format_message(), err=True)
        return typer.Exit(2)
    if context is None:
        return exit_with(_complaint(error))
    err.print(context.get_usage(), highlight=False, markup=False, soft_wrap=True)
    ended = exit_with(_complaint(error))
    err.print(worded("try_help", command=context.command_path), highlight=False, markup=False, soft_wrap=True)
    return ended


def _complaint(error: TyperException) -> str:
    """Of the catalogue. A value that is not taken is pydantic's to complain of."""
    if isinstance(error.__cause__, ValidationError) and isinstance(error, typer.BadParameter) and error.param:
        why = complaint(error.__cause__.errors()[0])
        return said("bad_value", option=error.param.get_error_hint(), why=_as_known(why))
    return _as_known(error.format_message())


def _as_known(english: str) -> str:
    """The message of the catalogue that says in English what typer says; typer's own where there is none."""
    for name in _COMPLAINTS:
        pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>.+)", re.escape(OF_COMMANDS[name][1]))
        if found := re.fullmatch(pattern, english):
            return said(name, **found.groupdict())
    return english


def _prepare_typer() -> None:
    """Its headings in the language of the terminal: they are gettext's elsewhere, asked when it is imported or writes.

    The catalogue holds typer's English word for word, so that each is found by it.
    """
    from typer import rich_utils  # which takes a moment that only --help needs

    messages = (
        said("heading_arguments"),
        said("heading_options"),
        said("heading_commands"),
        said("is_required"),
        said("by_default", value="{default}"),
        said("by_default", value="{}"),
    )
    words = {str(message): in_terminal(message) for message in messages}
    words |= {f"[{english}]": f"[{shown}]" for english, shown in words.items()}
    vars(core)["_"] = lambda english: words.get(english, english)
    boxes = vars(rich_utils)
    boxes |= {name: words[known] for name, known in boxes.items() if isinstance(known, str) and known in words}
    boxes["highlighter"] = _Folding(rich_utils.highlighter.highlights)


class _Folding(RegexHighlighter):
    """Chinese has no spaces to break a line at: what is too long is folded, where rich would cut it off."""

    def __init__(self, highlights: Sequence[str]) -> None:
        self.highlights = highlights  # type: ignore[misc]  # of this one alone

    def highlight(self, text: Text) -> None:
        super().highlight(text)
        text.overflow = "fold"
