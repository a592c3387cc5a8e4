"""The command line: its commands, their tables, gold cases, what labelled data say of a task, the feedback desk."""

from typing import Annotated

import typer

from qwen_allinone import __version__
from qwen_allinone.cli.groups import group
from qwen_allinone.cli.terminal import worded

app = group(
    worded("does_all"),
    {
        "serve": ("serve_command:serve", worded("does_serve")),
        "ask": ("commands:ask", worded("does_ask")),
        "check": ("commands:check", worded("does_check")),
        "eval": ("labelled_commands:evaluate", worded("does_eval")),
        "calibrate": ("labelled_commands:calibrate", worded("does_calibrate")),
        "tune": ("tune_command:tune", worded("does_tune")),
        "tune-prompt": ("tune_prompt_command:tune_prompt", worded("does_tune_prompt")),
        "feedback": ("feedback_command:feedback", worded("does_feedback")),
        "doctor": ("commands:doctor", worded("does_doctor")),
        "download": ("commands:download", worded("does_download")),
    },
)
_groups = {
    "keys": (
        worded("does_keys"),
        {
            "new": ("key_commands:new_key", worded("does_keys_new")),
            "list": ("key_commands:list_keys", worded("does_keys_list")),
            "remove": ("key_commands:remove_key", worded("does_keys_remove")),
        },
    ),
    "alerts": (
        worded("does_alerts"),
        {
            "test": ("alert_commands:test", worded("does_alerts_test")),
            "list": ("alert_commands:list_alerts", worded("does_alerts_list")),
            "retry": ("alert_commands:retry", worded("does_alerts_retry")),
        },
    ),
    "corrections": (
        worded("does_corrections"),
        {
            "export": ("correction_commands:export", worded("does_corrections_export")),
        },
    ),
    "prompts": (
        worded("does_prompts"),
        {
            "list": ("prompt_commands:list_versions", worded("does_prompts_list")),
            "try": ("prompt_commands:try_version", worded("does_prompts_try")),
            "reload": ("prompt_commands:reload", worded("does_prompts_reload")),
            "back": ("prompt_commands:back", worded("does_prompts_back")),
        },
    ),
}
for _name, (_about, _commands) in _groups.items():
    app.add_typer(group(_about, _commands), name=_name)


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
