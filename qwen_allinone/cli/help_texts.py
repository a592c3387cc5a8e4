"""`--help` in the language of the terminal, what typer says itself included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.highlighter import RegexHighlighter
from rich.text import Text
from typer import core

from qwen_allinone.cli.terminal import in_terminal, worded
from qwen_allinone.wording import said


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
