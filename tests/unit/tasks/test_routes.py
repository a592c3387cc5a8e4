"""What the labels of `route` stand for, and what is refused at startup."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwen_allinone.errors import TaskFileError
from qwen_allinone.service import Service
from qwen_allinone.tasks import Registry, load_task, routes_of
from tests.support.engines import idle_engine
from tests.support.tasks import KEYWORDS, ROUTE, SENTIMENT, write_care, write_prompts


def routes(tmp_path: Path, route: str) -> dict[str, str]:
    return dict(routes_of(Registry.load(write_prompts(tmp_path / "prompts", route=route, keywords=KEYWORDS))))


def test_a_label_stands_for_its_task_or_for_the_one_called_as_it_is(tmp_path: Path) -> None:
    assert routes(tmp_path, ROUTE) == {"情感": "sentiment", "keywords": "keywords"}


FAULTS = {
    "a task there is not": (ROUTE.replace("task: sentiment", "task: spam"), "output.labels: 情感", "no other task"),
    "a name that is no task": (
        ROUTE.replace("{name: keywords}", "{name: 关键词}"),
        "output.labels: 关键词",
        "no other task",
    ),
    "itself": (ROUTE.replace("task: sentiment", "task: route"), "output.labels: 情感", "no other task"),
    "a task that takes more": (
        ROUTE.replace("task: sentiment", "task: chat"),
        "output.labels: 情感",
        "text, sentiment",
    ),
    "a choice it may refuse": (
        ROUTE.replace("decoding:", "  unknown: {name: 未知, below: 0.5}\ndecoding:"),
        "output.unknown",
        "without a task",
    ),
    "another input": (ROUTE.replace("{text: {max", "{word: {max").replace("$text", "$word"), "inputs", "do not suit"),
    "no labels": (KEYWORDS, "output.kind", "picks no task"),
}


@pytest.mark.parametrize(("prompt", "key", "word"), FAULTS.values(), ids=FAULTS)
def test_a_route_that_could_lead_nowhere_stops_the_start(tmp_path: Path, prompt: str, key: str, word: str) -> None:
    registry = Registry.load(write_prompts(tmp_path / "prompts", route=prompt, keywords=KEYWORDS))
    with pytest.raises(TaskFileError) as caught:
        Service(registry, idle_engine(), deadline_s=1.0)
    assert (caught.value.file, caught.value.key) == (Path("route/prompt.md"), key)
    assert word in str(caught.value) and ". Fix: " in str(caught.value)


def test_the_fix_names_the_tasks_that_take_a_text(tmp_path: Path) -> None:
    with pytest.raises(TaskFileError, match="with one of keywords、sentiment$"):
        routes(tmp_path, ROUTE.replace("task: sentiment", "task: spam"))


def test_no_label_stands_for_care(tmp_path: Path) -> None:
    root = write_prompts(tmp_path / "prompts", route=ROUTE.replace("task: sentiment", "task: care"), keywords=KEYWORDS)
    with pytest.raises(TaskFileError, match="'care', which answers nobody.*with one of keywords、sentiment$"):
        routes_of(Registry.load(write_care(root)))


def test_only_the_labels_of_route_stand_for_tasks(tmp_path: Path) -> None:
    prompt = SENTIMENT.replace("{name: 正面, ", "{name: 正面, task: keywords, ")
    folder = write_prompts(tmp_path / "prompts", sentiment=prompt) / "sentiment"
    with pytest.raises(TaskFileError, match=r"output\.labels: task: .*`route`.* Fix: remove it"):
        load_task(folder)


def test_a_service_without_route_needs_none(tmp_path: Path) -> None:
    Service(Registry.load(write_prompts(tmp_path / "prompts")), idle_engine(), deadline_s=1.0)
