"""The prompt bench of the service, as the page uses it: a task's prompt is read, a changed one tried and saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ui.client import Api, ApiError


@dataclass(frozen=True)
class Prompt:
    """What is served, and how many gold cases it has."""

    text: str
    cases: int


@dataclass(frozen=True)
class Side:
    """One prompt's answer to a gold case; `problem`: what is wrong with it."""

    answer: str
    problem: str

    @property
    def right(self) -> bool:
        return not self.problem


@dataclass(frozen=True)
class Case:
    """A gold case under the old prompt, if that takes it, and the new one."""

    inputs: Mapping[str, str]
    expected: str
    before: Side | None
    now: Side


@dataclass(frozen=True)
class Trial:
    """How both do; accuracies are shares of 1."""

    before: float | None
    now: float
    cases: tuple[Case, ...]


async def read(api: Api, task: str) -> Prompt:
    """Raises ApiError."""
    given = await api.ask("GET", _path(task))
    return Prompt(str(given.get("prompt", "")), int(given.get("cases", 0)))


async def try_prompt(api: Api, task: str, prompt: str) -> Trial:
    """Run the gold cases of `task` under both prompts. Raises ApiError."""
    given = await api.ask("POST", f"{_path(task)}/trial", {"prompt": prompt})
    try:
        cases = tuple(
            Case(one["inputs"], one["expected"], one["before"] and _side(one["before"]), _side(one["now"]))
            for one in given["results"]
        )
        before = given["before"]["accuracy"] if given["before"] else None
        return Trial(before, given["now"]["accuracy"], cases)
    except (KeyError, TypeError):
        raise ApiError("服务的回答不合约定，请检查本页所连的地址") from None


async def save(api: Api, task: str, name: str, prompt: str) -> str:
    """Make the task folder `name` of `task` and `prompt`; returns the command that makes it served. Raises ApiError."""
    given = await api.ask("POST", f"{_path(task)}/save", {"name": name, "prompt": prompt})
    return str(given.get("next", ""))


def _side(given: Mapping[str, Any]) -> Side:
    return Side(given["answer"], given["problem"])


def _path(task: str) -> str:
    return f"/v1/prompts/{quote(task, safe='')}"
