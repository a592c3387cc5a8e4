"""`qwen-allinone corrections`: what people said of answers, as rows that `eval` and `calibrate` read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qwen_allinone.cli.result_files import write_corrections
from qwen_allinone.cli.terminal import err, exit_with, tell, worded
from qwen_allinone.errors import DataFileError, QaioError, SettingsError
from qwen_allinone.settings import Settings
from qwen_allinone.state import Corrections
from qwen_allinone.tasks import Registry
from qwen_allinone.wording import said


def export(
    task: Annotated[str, typer.Argument(help=worded("arg_label_task"))],
    out: Annotated[Path, typer.Option(help=worded("opt_corrections_out"))] = Path("corrections.csv"),
) -> None:
    """Write all that people said of a task's answers as labelled CSV, oldest first, what was right included."""
    try:
        settings = Settings.load()
        if settings.feedback_file is None:
            raise SettingsError(said("feedback_file_not_set"))
        if not settings.feedback_file.is_file():
            raise DataFileError(said("no_feedback_file", feedback_file=settings.feedback_file))
        inputs = list(Registry.load(settings.prompts).get(task).spec.inputs)
        corrections = Corrections(settings.feedback_file, days=settings.feedback_days, max_mb=settings.feedback_max_mb)
        kept = corrections.kept(task)
        corrections.close()
        if not kept:
            raise DataFileError(said("no_feedback_on_task", task=task, feedback_days=settings.feedback_days))
        write_corrections(out, inputs, kept)
    except QaioError as error:
        raise exit_with(error) from None
    right = sum(correction.was_right for correction in kept)
    tell(err, said("corrections_in", count=len(kept), file=out, right=right))
