"""The task `route` picks other tasks: which task each of its labels stands for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from qwen_allinone.errors import TaskFileError
from qwen_allinone.tasks.registry import Registry
from qwen_allinone.tasks.task import CARE, ROUTE, Label, Task
from qwen_allinone.wording import said

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
        raise TaskFileError(file, "output.kind", said("picks_no_task"), said("write_kind_label"))
    if set(task.spec.inputs) != _TEXT_ONLY:
        raise TaskFileError(file, "inputs", said("do_not_suit_route"), said("use_only_text"))
    if task.spec.output.unknown:
        problem = said("route_to_nothing")
        raise TaskFileError(file, "output.unknown", problem, said("remove_or_add_label"))
    return {label.name: _target(registry, task, label, file) for label in task.spec.output.labels}


def _target(registry: Registry, task: Task, label: Label, file: Path) -> str:
    target = label.task or label.name
    where = f"output.labels: {label.name}"
    takers = "、".join(t.name for t in registry if t.name not in (ROUTE, CARE) and set(t.spec.inputs) == _TEXT_ONLY)
    fix = said("add_task_to_label", takers=takers) if takers else said("add_text_task")
    if target == task.name or target not in registry:
        raise TaskFileError(file, where, said("stands_for_no_task", target=target), fix)
    if target == CARE:
        raise TaskFileError(file, where, said("stands_for_inner_task", target=target), fix)
    if set(registry.get(target).spec.inputs) != _TEXT_ONLY:
        needs = ", ".join(registry.get(target).spec.inputs)
        raise TaskFileError(file, where, said("stands_for_more_inputs", target=target, needs=needs), fix)
    return target
