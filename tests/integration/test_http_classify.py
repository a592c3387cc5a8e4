"""Labels for one text or many in one request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Gate, Later, Server, StartServer, until
from tests.support.tasks import write_prompts

PATH = "/v1/classify"
TEXTS = ["今天心情特别差", "升职了，太开心了", "饭菜都凉了，失望", "房间干净，服务热情", "等了两个小时没人理我"]
TWO_INPUTS = """\
---
description: 比较
inputs: {one: {max_tokens: 40}, other: {max_tokens: 40}}
output:
  kind: label
  labels: [{name: 正面}, {name: 负面}]
decoding: {strategy: greedy, max_new_tokens: 8}
---
$one
$other
"""


def classify(server: Server, **fields: Any) -> Any:
    return server.post(PATH, {"model": "demo", "task": "sentiment"} | fields)


def test_many_texts_get_the_labels_and_probabilities_that_each_gets_alone(server: Server) -> None:
    body = classify(server, input=TEXTS).get_json()
    assert list(body) == ["id", "object", "created", "model", "data", "usage"]
    assert (body["object"], body["model"]) == ("list", "demo") and body["id"].startswith("classify-")
    alone = [classify(server, input=text).get_json() for text in TEXTS]
    for index, (found, single, text) in enumerate(zip(body["data"], alone, TEXTS, strict=True)):
        assert list(found) == ["index", "label", "probs", "num_classes"]
        assert (found["index"], found["num_classes"]) == (index, 2)
        assert sum(found["probs"]) == pytest.approx(1.0)
        (one,) = single["data"]
        assert found["probs"] == pytest.approx(one["probs"], abs=1e-4)
        assert found["label"] == one["label"] == ("正面", "负面")[found["probs"].index(max(found["probs"]))]
        assert server.post("/v1/tasks/sentiment", {"text": text}).get_json()["label"] == found["label"]
    assert {found["label"] for found in body["data"]} == {"正面", "负面"}
    read = sum(single["usage"]["prompt_tokens"] for single in alone)
    assert body["usage"] == {"prompt_tokens": read, "completion_tokens": 0, "total_tokens": read}


def test_the_sentiment_is_what_is_asked_unless_told_otherwise(server: Server) -> None:
    answer = server.post(PATH, {"model": "demo", "input": TEXTS[0]})
    assert answer.get_json()["data"][0]["label"] == "负面"


@pytest.mark.parametrize(
    ("fields", "status", "param", "code"),
    [
        ({"input": []}, 400, "input", "invalid_input"),
        ({"input": ["好"] * 257}, 400, "input", "invalid_input"),
        ({"input": 1}, 400, "input", "invalid_input"),
        ({"input": ["好", 1]}, 400, "input[1]", "invalid_input"),
        ({"input": ""}, 400, "input", "empty_input"),
        ({"input": ["好", "坏", " "]}, 400, "input[2]", "empty_input"),
        ({"input": ["好", "好，" * 1025]}, 400, "input[1]", "input_too_long"),
        ({"input": "好", "task": "chat"}, 400, "task", "invalid_input"),
        ({"input": "好", "task": "nothing"}, 404, "task", "unknown_task"),
        ({"input": "好", "model": "gpt"}, 404, "model", "model_not_found"),
        ({"input": "好", "dimensions": 3}, 400, "dimensions", "invalid_input"),
        ({}, 400, "input", "invalid_input"),
    ],
)
def test_what_is_wrong_is_named(server: Server, fields: dict[str, Any], status: int, param: str, code: str) -> None:
    answer = classify(server, **fields)
    error = answer.get_json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (status, param, code)


def test_a_task_of_two_inputs_has_a_route_of_its_own(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(QAIO_PROMPTS=str(write_prompts(tmp_path, compare=TWO_INPUTS)))
    answer = classify(server, input="好", task="compare")
    assert answer.status_code == 400 and "/v1/tasks/compare" in answer.get_json()["error"]["message"]


def test_many_texts_take_one_place_and_leave_slots_to_others(start_server: StartServer) -> None:
    server = start_server(QAIO_SLOTS="8", QAIO_MAX_WAITING="0")
    gate = Gate(server)
    gate.shut()
    batch = Later(lambda: classify(server, input=TEXTS * 8))
    assert gate.entered.wait(30)
    assert server.service.engine.admitted == 1
    other = Later(lambda: server.post("/v1/tasks/sentiment", {"text": "好"}))
    until(lambda: server.service.engine.admitted == 2)
    gate.open()
    assert other.answer().status_code == 200
    body = batch.answer().get_json()
    assert [found["index"] for found in body["data"]] == list(range(40))
    until(lambda: server.service.engine.admitted == 0)
