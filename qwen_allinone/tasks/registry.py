"""All tasks of a prompts folder, by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from qwen_allinone.errors import TaskFileError, UnknownTask
from qwen_allinone.tasks.loader import load_cases, load_task
from qwen_allinone.tasks.task import Case, Task


class Registry:
    """The tasks found under one folder at startup."""

    def __init__(self, tasks: dict[str, Task], cases: dict[str, list[Case]]) -> None:
        self._tasks = tasks
        self._cases = cases

    @classmethod
    def load(cls, root: Path) -> Registry:
        """Load every folder under `root`; names beginning with `.` or `_` are passed over.

        Raises:
            TaskFileError: no such folder, no task in it, or a task file at fault.
        """
        if not root.is_dir():
            raise TaskFileError(root, "(folder)", "does not exist", "set QAIO_PROMPTS to the folder of the tasks")
        folders = sorted(p for p in root.iterdir() if p.is_dir() and p.name[0] not in "._")
        if not folders:
            raise TaskFileError(root, "(folder)", "holds no task", "add a folder with a prompt.md")
        tasks = {folder.name: load_task(folder) for folder in folders}
        return cls(tasks, {folder.name: load_cases(folder, tasks[folder.name]) for folder in folders})

    def get(self, name: str) -> Task:
        """The task called `name`; raises UnknownTask with the names there are."""
        if name not in self._tasks:
            raise UnknownTask(name, list(self._tasks))
        return self._tasks[name]

    def cases(self, name: str) -> list[Case]:
        """The gold cases of the task called `name`."""
        return self._cases[self.get(name).name]

    def __iter__(self) -> Iterator[Task]:
        return iter(self._tasks.values())

    def __contains__(self, name: str) -> bool:
        return name in self._tasks
