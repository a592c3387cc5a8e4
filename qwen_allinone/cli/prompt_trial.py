"""Compares two versions of the prompts by their gold cases, on one model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from qwen_allinone.cli.asking import most_at_once
from qwen_allinone.cli.gold_cases import check_task
from qwen_allinone.cli.loaded_service import load_service
from qwen_allinone.service import Service
from qwen_allinone.settings import Settings
from qwen_allinone.tasks import Registry, Task
from qwen_allinone.wording import said


@dataclass(frozen=True)
class Compared:
    """A changed task's share of right answers before and now, to the same gold `cases` where both can be asked them."""

    task: str
    cases: int
    before: float
    now: float

    def lost(self, may_lose: float) -> str:
        """What is wrong with it; empty if it lost no more than it may."""
        if self.before - self.now <= may_lose + 1e-9:
            return ""
        shares = {"now": f"{self.now:.0%}", "before": f"{self.before:.0%}", "may_lose": f"{may_lose:g}"}
        return said("cases_lost", task=self.task, cases=self.cases, **shares)


def compare(settings: Settings, old: Registry, new: Registry) -> list[Compared]:
    """The tasks that both have, whose prompts differ and that have gold cases. Loads the model if there are any."""
    changed = [task for task in new if task.name in old and old.get(task.name) != task and new.cases(task.name)]
    if not changed:
        return []
    tasks, cases = {task.name: task for task in new}, {task.name: new.cases(task.name) for task in new}
    for task in changed:
        was = replace(old.get(task.name), name=_was(task))
        tasks[was.name] = was
        same = set(was.spec.inputs) == set(task.spec.inputs) and was.spec.output.kind == task.spec.output.kind
        cases[was.name] = cases[task.name] if same else old.cases(task.name)
    service = load_service(settings, Registry(tasks, cases))
    return list(_compared(service, changed, most_at_once(settings)))


def _compared(service: Service, changed: list[Task], at_once: int) -> Iterator[Compared]:
    for task in changed:
        before, now = (_share(service, name, at_once) for name in (_was(task), task.name))
        yield Compared(task.name, len(service.registry.cases(task.name)), before, now)


def _share(service: Service, name: str, at_once: int) -> float:
    """Of a label task as it was measured when it met the model: a fit is judged by cases that it has not seen."""
    if fit := service.gold_fits().get(name):
        return fit.accuracy
    outcomes = list(check_task(service, name, service.registry.cases(name), 0, at_once))
    return sum(outcome.passed for outcome in outcomes) / len(outcomes) if outcomes else 0.0


def _was(task: Task) -> str:
    return f"{task.name} before"  # no folder has such a name
