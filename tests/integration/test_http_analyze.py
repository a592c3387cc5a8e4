"""POST /v1/analyze: several tasks on one text, as one request."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.integration.conftest import Gate, Later, Server, StartServer, until

TEXT = "酒店的早餐很好吃，但是房间太吵"
GREEDY = ["keywords", "sentiment", "intent", "summary", "route"]  # answers that are not drawn by chance


def analyze(server: Server, tasks: object, text: object = TEXT) -> Any:
    return server.post("/v1/analyze", {"text": text, "tasks": tasks})


def test_each_answer_is_that_of_the_task_alone_in_the_order_asked(server: Server) -> None:
    alone = {task: server.post(f"/v1/tasks/{task}", {"text": TEXT}).get_json() for task in GREEDY}
    for names in (GREEDY, GREEDY[::-1], GREEDY[1:2]):
        answer = analyze(server, names)
        assert answer.status_code == 200
        assert answer.get_json() == {"results": [alone[name] for name in names]}


@pytest.mark.parametrize(
    ("tasks", "status", "param", "said"),
    [
        ([], 400, "tasks", "不能为空"),
        (["sentiment", "sentiment"], 400, "tasks", "重复"),
        (["sentiment", "nope"], 404, "task", "sentiment"),
        (["sentiment", "chat"], 400, "tasks", "chat"),
        (["sentiment", 1], 400, "tasks[1]", "字符串"),
        ("sentiment", 400, "tasks", "数组"),
        (None, 400, "tasks", "数组"),
        ({"sentiment": True}, 400, "tasks", "数组"),
    ],
)
def test_bad_task_lists_are_refused_and_the_answer_says_what_is_allowed(
    server: Server, tasks: object, status: int, param: str, said: str
) -> None:
    answer = analyze(server, tasks)
    error = answer.get_json()["error"]
    assert (answer.status_code, error["param"]) == (status, param), error
    assert said in error["message"]


def test_detail_is_added_to_every_answer(server: Server) -> None:
    answer = server.post("/v1/analyze", {"text": TEXT, "tasks": ["intent", "keywords"], "detail": True}).get_json()
    intent, keywords = (result["detail"] for result in answer["results"])
    assert sum(intent["probabilities"].values()) == pytest.approx(1.0, abs=1e-3) and "probabilities" not in keywords
    routed = server.post("/v1/route", {"text": TEXT, "detail": True}).get_json()
    assert routed["detail"]["prompt_version"]


@pytest.mark.parametrize("text", ["", " ", None, 5, "好" * 20_000])
def test_a_bad_text_is_a_400(server: Server, text: object) -> None:
    answer = analyze(server, ["sentiment", "intent"], text)
    assert (answer.status_code, answer.get_json()["error"]["param"]) == (400, "text")


def test_it_takes_one_place_and_several_slots(start_server: StartServer) -> None:
    server = start_server(QAIO_SLOTS="4", QAIO_MAX_WAITING="0")
    engine = server.service.engine
    gate = Gate(server)
    gate.shut()
    waiting = Later(lambda: analyze(server, ["sentiment", "intent", "route"]))
    until(lambda: engine.waiting + engine.running == 3)
    assert engine.admitted == 1
    gate.open()
    assert waiting.answer().status_code == 200
    assert (engine.admitted, engine.running) == (0, 0)


def test_a_failure_of_one_is_the_answer_and_ends_the_others(start_server: StartServer) -> None:
    server = start_server()
    gate = Gate(server)
    gate.shut()
    late = Later(
        lambda: server.client.post(
            "/v1/analyze", json={"text": TEXT, "tasks": ["sentiment", "summary"]}, headers={"X-Timeout-Ms": "200"}
        )
    )
    assert gate.entered.wait(30)
    until(lambda: server.service.engine.admitted == 1)
    time.sleep(0.3)
    gate.open()
    assert late.answer().status_code == 504
    until(lambda: server.service.engine.admitted == 0 and server.service.engine.running == 0)
    assert analyze(server, ["sentiment"]).status_code == 200


def test_every_task_is_told_of_in_the_metrics(start_server: StartServer) -> None:
    server = start_server()
    assert analyze(server, ["sentiment", "intent"]).status_code == 200
    lines = server.client.get("/metrics").get_data(as_text=True).splitlines()
    for task in ("sentiment", "intent"):
        found = [line for line in lines if line.startswith("qaio_labels_total") and f'task="{task}"' in line]
        assert sum(float(line.split()[-1]) for line in found) == 1
