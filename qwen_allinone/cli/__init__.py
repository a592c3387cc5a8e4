"""The command line: its commands, their tables, gold cases, what labelled data say of a task, the feedback desk."""

from typing import Annotated

import typer

from qwen_allinone import __version__
from qwen_allinone.cli import (
    alert_commands,
    commands,
    correction_commands,
    feedback_command,
    key_commands,
    labelled_commands,
    prompt_commands,
    tune_command,
    tune_prompt_command,
)

app = typer.Typer(help="One small language model, many jobs.", no_args_is_help=True, add_completion=False)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"qwen-allinone {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which one")] = False,
) -> None:
    pass


app.command()(commands.serve)
app.command()(commands.ask)
app.command()(commands.check)
app.command("eval")(labelled_commands.evaluate)
app.command()(labelled_commands.calibrate)
app.command()(tune_command.tune)
app.command("tune-prompt")(tune_prompt_command.tune_prompt)
app.command()(feedback_command.feedback)
app.command()(commands.doctor)
app.command()(commands.download)

_keys = typer.Typer(help="API keys: new, list, remove. The service takes up changes by itself.", no_args_is_help=True)
_keys.command("new")(key_commands.new_key)
_keys.command("list")(key_commands.list_keys)
_keys.command("remove")(key_commands.remove_key)
app.add_typer(_keys, name="keys")

_alerts = typer.Typer(help="Alerts to people: test, list, retry.", no_args_is_help=True)
_alerts.command("test")(alert_commands.test)
_alerts.command("list")(alert_commands.list_alerts)
_alerts.command("retry")(alert_commands.retry)
app.add_typer(_alerts, name="alerts")

_corrections = typer.Typer(help="What people said of answers: export.", no_args_is_help=True)
_corrections.command("export")(correction_commands.export)
app.add_typer(_corrections, name="corrections")


@_corrections.callback()
def _corrections_main() -> None:
    """With one command alone typer would take its name for an argument."""


_prompts = typer.Typer(help="Versions of the prompts: list, try, reload, back.", no_args_is_help=True)
_prompts.command("list")(prompt_commands.list_versions)
_prompts.command("try")(prompt_commands.try_version)
_prompts.command("reload")(prompt_commands.reload)
_prompts.command("back")(prompt_commands.back)
app.add_typer(_prompts, name="prompts")
