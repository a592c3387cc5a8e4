"""A task folder made of another one and a changed prompt: looked at for a moment, or saved beside it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qwen_allinone.errors import TaskFileError, TaskTaken
from qwen_allinone.tasks.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from qwen_allinone.tasks.loader import CALIBRATION, FOLDER_NAME, load_cases, load_task
from qwen_allinone.tasks.task import Case, Task
from qwen_allinone.wording import said

PROMPT = "prompt.md"
# What was found for one prompt and is wrong for another.
_OF_THE_OLD_PROMPT = frozenset({CALIBRATION, ADAPTER_CONFIG, ADAPTER_WEIGHTS})


def read_changed(folder: Path, prompt: str) -> tuple[Task, list[Case]]:
    """The task of `folder` with its gold cases, had it this `prompt`; an adapter stays with it.

    Raises:
        TaskFileError: as `load_task` and `load_cases`. OSError.
    """
    with tempfile.TemporaryDirectory() as root, _made(Path(root), folder, folder.name, prompt, {CALIBRATION}) as made:
        return _load(made)


def save_as(folder: Path, prompt: str, root: Path, name: str) -> Task:
    """Make the folder `name` under `root`, of all that is in `folder` but for its prompt, which is `prompt`, and what
    was found for that. It is there whole or not at all.

    Raises:
        TaskTaken: there is one. TaskFileError: it would be no task, or its gold cases would not fit it. OSError.
    """
    if not FOLDER_NAME.fullmatch(name):  # before it is part of a path
        raise TaskFileError(Path(name), "folder name", said("task_name_invalid"), said("task_name_form"))
    if (root / name).exists():
        raise TaskTaken(name)
    with (
        tempfile.TemporaryDirectory(prefix=".new-", dir=root) as beside,  # no task is looked for behind a dot
        _made(Path(beside), folder, name, prompt, _OF_THE_OLD_PROMPT) as made,
    ):
        task, _ = _load(made)
        os.chmod(made, 0o755)
        try:
            made.rename(root / name)
        except OSError as error:
            raise TaskTaken(name) if (root / name).exists() else error from None
        return task


def _load(folder: Path) -> tuple[Task, list[Case]]:
    task = load_task(folder)
    return task, load_cases(folder, task)


@contextmanager
def _made(root: Path, folder: Path, name: str, prompt: str, without: frozenset[str] | set[str]) -> Iterator[Path]:
    """A folder `name` under `root`; what is wrong with it is told without where that was."""
    made = root / name
    made.mkdir()
    for file in folder.iterdir():
        if file.is_file() and file.name[0] not in ".~" and file.name not in {PROMPT, *without}:
            shutil.copyfile(file, made / file.name)
    (made / PROMPT).write_text(prompt, encoding="utf-8", newline="\n")
    try:
        yield made
    except TaskFileError as error:
        raise error.below(root) from None
