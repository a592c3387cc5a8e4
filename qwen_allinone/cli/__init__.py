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
from qwen_allinone.cli.help_texts import add, group
from qwen_allinone.cli.terminal import worded

app = group(worded("does_all"))


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"qwen-allinone {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help=worded("opt_version"))
    ] = False,
) -> None:
    pass


add(app, "serve", commands.serve, worded("does_serve"))
add(app, "ask", commands.ask, worded("does_ask"))
add(app, "check", commands.check, worded("does_check"))
add(app, "eval", labelled_commands.evaluate, worded("does_eval"))
add(app, "calibrate", labelled_commands.calibrate, worded("does_calibrate"))
add(app, "tune", tune_command.tune, worded("does_tune"))
add(app, "tune-prompt", tune_prompt_command.tune_prompt, worded("does_tune_prompt"))
add(app, "feedback", feedback_command.feedback, worded("does_feedback"))
add(app, "doctor", commands.doctor, worded("does_doctor"))
add(app, "download", commands.download, worded("does_download"))

_keys = group(worded("does_keys"))
add(_keys, "new", key_commands.new_key, worded("does_keys_new"))
add(_keys, "list", key_commands.list_keys, worded("does_keys_list"))
add(_keys, "remove", key_commands.remove_key, worded("does_keys_remove"))
app.add_typer(_keys, name="keys")

_alerts = group(worded("does_alerts"))
add(_alerts, "test", alert_commands.test, worded("does_alerts_test"))
add(_alerts, "list", alert_commands.list_alerts, worded("does_alerts_list"))
add(_alerts, "retry", alert_commands.retry, worded("does_alerts_retry"))
app.add_typer(_alerts, name="alerts")

_corrections = group(worded("does_corrections"))
add(_corrections, "export", correction_commands.export, worded("does_corrections_export"))
app.add_typer(_corrections, name="corrections")


@_corrections.callback()
def _corrections_main() -> None:
    """With one command alone typer would take its name for an argument."""


_prompts = group(worded("does_prompts"))
add(_prompts, "list", prompt_commands.list_versions, worded("does_prompts_list"))
add(_prompts, "try", prompt_commands.try_version, worded("does_prompts_try"))
add(_prompts, "reload", prompt_commands.reload, worded("does_prompts_reload"))
add(_prompts, "back", prompt_commands.back, worded("does_prompts_back"))
app.add_typer(_prompts, name="prompts")
