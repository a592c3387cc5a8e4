"""All tasks of a prompts folder, by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from qwen_allinone.errors import TaskFileError, UnknownTask
from qwen_allinone.tasks.loader import load_cases, load_task
from qwen_allinone.tasks.masking import MaskKind
from qwen_allinone.tasks.task import Case, Task
from qwen_allinone.tasks.versions import files_of, task_folders, version_of
from qwen_allinone.wording import said


class Registry:
    """The tasks found under one folder at startup. `version` stands for all of its files."""

    def __init__(self, tasks: dict[str, Task], cases: dict[str, list[Case]], version: str = "") -> None:
        self._tasks = tasks
        self._cases = cases
        self.version = version

    @classmethod
    def load(cls, root: Path) -> Registry:
        """Load every task under `root`.

        Raises:
            TaskFileError: no such folder, no task in it, or a task file at fault.
        """
        folders = task_folders(root)
        tasks = {folder.name: load_task(folder) for folder in folders}
        cases = {folder.name: load_cases(folder, tasks[folder.name]) for folder in folders}
        try:
            return cls(tasks, cases, version_of(files_of(root)))
        except OSError as error:
            fix = said("make_readable")
            raise TaskFileError(root, "(folder)", said("is_unreadable", error=error.strerror), fix) from None

    def get(self, name: str) -> Task:
        """The task called `name`; raises UnknownTask with the names there are."""
        if name not in self._tasks:
            raise UnknownTask(name, list(self._tasks))
        return self._tasks[name]

    @property
    def masks(self) -> frozenset[MaskKind]:
        """Kinds of numbers that any task hides."""
        return frozenset(kind for task in self for spec in task.spec.inputs.values() for kind in spec.mask)

    def cases(self, name: str) -> list[Case]:
        """The gold cases of the task called `name`."""
        return self._cases[self.get(name).name]

    def __iter__(self) -> Iterator[Task]:
        return iter(self._tasks.values())

    def __contains__(self, name: str) -> bool:
        return name in self._tasks
