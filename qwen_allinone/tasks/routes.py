"""The task `route` picks other tasks: which task each of its labels stands for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from qwen_allinone.errors import TaskFileError
from qwen_allinone.tasks.registry import Registry
from qwen_allinone.tasks.task import CARE, ROUTE, Label, Task

_TEXT_ONLY = {"text"}


def routes_of(registry: Registry) -> Mapping[str, str]:
    """The task that each label of `route` stands for: its `task`, or the one called as the label is.

    Raises:
        TaskFileError: `route` is no label task of one text, may abstain, or has a label for no task that takes a text,
            or for `care`, which is a part of /chat.
    """
    task = registry.get(ROUTE)
    file = Path(ROUTE) / "prompt.md"
    if not task.labels:
        raise TaskFileError(file, "output.kind", "picks no task", "write `kind: label`")
    if set(task.spec.inputs) != _TEXT_ONLY:
        raise TaskFileError(file, "inputs", "do not suit /v1/route", "use only text")
    if task.spec.output.unknown:
        problem = "leaves /v1/route without a task to run"
        raise TaskFileError(file, "output.unknown", problem, "remove it, or add a label for what fits no other task")
    return {label.name: _target(registry, task, label, file) for label in task.spec.output.labels}


def _target(registry: Registry, task: Task, label: Label, file: Path) -> str:
    target = label.task or label.name
    where = f"output.labels: {label.name}"
    takers = "、".join(t.name for t in registry if t.name not in (ROUTE, CARE) and set(t.spec.inputs) == _TEXT_ONLY)
    fix = f"add `task:` with one of {takers}" if takers else "add a task whose only input is text"
    if target == task.name or target not in registry:
        raise TaskFileError(file, where, f"stands for {target!r}, which is no other task", fix)
    if target == CARE:
        raise TaskFileError(file, where, f"stands for {target!r}, which answers nobody by itself", fix)
    if set(registry.get(target).spec.inputs) != _TEXT_ONLY:
        needs = ", ".join(registry.get(target).spec.inputs)
        raise TaskFileError(file, where, f"stands for {target!r}, which takes {needs} and not just text", fix)
    return target
