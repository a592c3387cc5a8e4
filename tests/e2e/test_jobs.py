"""Every task that ships, over HTTP from two workers; routes; and what is refused."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.e2e.conftest import Reply, Service

TEXTS = {
    "intent": "请问周末几点开门",
    "keywords": "酒店的早餐很好吃，房间也干净",
    "summary": "各位住户，因为水管检修，本楼周五上午停水。请提前储水。感谢理解。",
    "translate": "我喜欢音乐。",
    "sentiment_en": "The room was clean and the staff was friendly.",
    "sentiment": "今天心情特别差，工作也不顺利",
    "ticket": "耳机用了两天左边就没声音了",
    "aspects": "房间很干净，隔音太差",
    "urgency": "电梯停在半空，里面还有人",
    "handover": "我要找真人，不要机器人",
    "category": "发票抬头开错了",
    "satisfaction": "等了一个小时，菜还是凉的",
}
PROMPTS = Path(__file__).parents[2] / "prompts"


def post(service: Service, path: str, body: object) -> Reply:
    data = json.dumps(body, ensure_ascii=False).encode()
    return service.ask("POST", path, data, Content_Type="application/json")


def listed(service: Service) -> dict[str, dict[str, Any]]:
    return {task["name"]: task for task in service.ask("GET", "/v1/tasks").json["tasks"]}


def assert_is_of_its_kind(answer: dict[str, Any], tasks: dict[str, dict[str, Any]]) -> None:
    task = tasks[answer["task"]]
    if task["kind"] == "json":
        schema = json.loads((PROMPTS / answer["task"] / "schema.json").read_text("utf-8"))
        jsonschema.validate(answer["value"], schema)
        assert list(answer) == ["task", "value", "finish_reason"] and answer["finish_reason"] == "stop"
        return
    key = {"label": "label", "text": "text", "list": "items"}[task["kind"]]
    assert list(answer) == ["task", key]
    if key == "label":
        assert answer["label"] in task["labels"]
    elif key == "text":
        assert answer["text"] and answer["text"] == answer["text"].strip()
    else:
        assert answer["items"] and len(set(answer["items"])) == len(answer["items"]) <= 8
        assert all(isinstance(item, str) and item == item.strip() != "" for item in answer["items"])


@pytest.mark.parametrize("task", TEXTS)
def test_each_task_answers_as_its_kind_says(service: Service, task: str) -> None:
    answer = post(service, f"/v1/tasks/{task}", {"text": TEXTS[task]})
    assert (answer.status, answer.json["task"]) == (200, task)
    assert_is_of_its_kind(answer.json, listed(service))


def test_tasks_of_all_kinds_at_once_do_not_mix(service: Service) -> None:
    def ask(task: str) -> dict[str, Any]:
        return dict(post(service, f"/v1/tasks/{task}", {"text": TEXTS[task]}).json)

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(ask, [*TEXTS] * 3))
    alone = {task: ask(task) for task in TEXTS}
    assert answers == [alone[task] for task in [*TEXTS] * 3]  # none of these tasks draws its answer by chance


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_route_answers_what_the_task_it_picks_answers(service: Service, text: str) -> None:
    routed = post(service, "/v1/route", {"text": text})
    assert routed.status == 200
    assert_is_of_its_kind(routed.json, listed(service))
    assert post(service, f"/v1/tasks/{routed.json['task']}", {"text": text}).json == routed.json


def test_the_task_a_route_picks_is_the_one_its_label_stands_for(service: Service) -> None:
    names = {"情感": "sentiment", "英评": "sentiment_en", "意图": "intent", "关键词": "keywords", "摘要": "summary", "翻译": "translate"}  # fmt: skip
    for text in TEXTS.values():
        label = post(service, "/v1/tasks/route", {"text": text}).json["label"]
        assert post(service, "/v1/route", {"text": text}).json["task"] == names[label]


def test_an_unknown_task_is_a_404_that_names_those_there_are(service: Service) -> None:
    answer = post(service, "/v1/tasks/poem", {"text": "春天"})
    assert (answer.status, answer.json["error"]["code"]) == (404, "unknown_task")
    assert all(task in answer.json["error"]["message"] for task in listed(service))


@pytest.mark.parametrize("path", ["/v1/route", "/v1/tasks/keywords", "/v1/tasks/translate"])
@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "empty_input"),
        ({"text": " \n"}, "empty_input"),
        ({"text": 5}, "invalid_input"),
        ({"text": "好", "to": "en"}, "invalid_input"),
        ({"text": "长" * 5000}, "input_too_long"),
    ],
    ids=["nothing", "blanks", "a number", "an unknown key", "too long"],
)
def test_bad_input_is_a_400_that_says_what_to_do(service: Service, path: str, body: object, code: str) -> None:
    answer = post(service, path, body)
    assert (answer.status, answer.json["error"]["code"]) == (400, code)
    assert any("\u4e00" <= character <= "\u9fff" for character in answer.json["error"]["message"])


def test_a_route_takes_only_posts(service: Service) -> None:
    answer = service.ask("GET", "/v1/route")
    assert (answer.status, set(answer.headers["Allow"].split(", "))) == (405, {"OPTIONS", "POST"})
