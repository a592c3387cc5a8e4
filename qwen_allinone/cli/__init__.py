"""The command line: its commands, their tables, gold cases, what labelled data say of a task, the feedback desk."""

from typing import Annotated

import typer

from qwen_allinone import __version__
from qwen_allinone.cli.groups import group
from qwen_allinone.cli.terminal import worded

app = group(
    "does_all",
    {
        "serve": ("serve_command:serve", "does_serve"),
        "ask": ("commands:ask", "does_ask"),
        "check": ("commands:check", "does_check"),
        "eval": ("labelled_commands:evaluate", "does_eval"),
        "calibrate": ("labelled_commands:calibrate", "does_calibrate"),
        "tune": ("tune_command:tune", "does_tune"),
        "tune-prompt": ("tune_prompt_command:tune_prompt", "does_tune_prompt"),
        "feedback": ("feedback_command:feedback", "does_feedback"),
        "doctor": ("commands:doctor", "does_doctor"),
        "download": ("commands:download", "does_download"),
    },
)
_groups = {
    "keys": {
        "new": ("key_commands:new_key", "does_keys_new"),
        "list": ("key_commands:list_keys", "does_keys_list"),
        "remove": ("key_commands:remove_key", "does_keys_remove"),
    },
    "alerts": {
        "test": ("alert_commands:test", "does_alerts_test"),
        "list": ("alert_commands:list_alerts", "does_alerts_list"),
        "retry": ("alert_commands:retry", "does_alerts_retry"),
    },
    "corrections": {
        "export": ("correction_commands:export", "does_corrections_export"),
    },
    "prompts": {
        "list": ("prompt_commands:list_versions", "does_prompts_list"),
        "try": ("prompt_commands:try_version", "does_prompts_try"),
        "reload": ("prompt_commands:reload", "does_prompts_reload"),
        "back": ("prompt_commands:back", "does_prompts_back"),
    },
}
for _name, _commands in _groups.items():
    app.add_typer(group(f"does_{_name}", _commands), name=_name)


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
