"""Alerts of requests: chats, streams, tasks and lines of batches, from the request to a real receiver."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from qwen_allinone.http.batch_calls import LineCall, call
from tests.integration.conftest import Server, serve, until
from tests.support.receiver import Receiver, write_alerts

RULES = """
  - {name: quoted, when: {pattern: '订单 [0-9]{1,6}'}, show_text: true, channels: [ops]}
  - {name: labelled, when: {probability: {sentiment: 0.0}, keywords: [保密]}, channels: [ops]}
  - {name: many, when: {keywords: [又坏了]}, rate: {count: 3, within: 1h}, channels: [ops]}
  - {name: paused, when: {keywords: [停一停]}, cooldown: 1h, channels: [ops]}
"""
SECONDS = 120.0


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.down()


@pytest.fixture(scope="module")
def server(
    receiver: Receiver, brief: str, demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("alerts")
    given = {
        "QAIO_MODEL": "demo",
        "QAIO_THREADS": "1",
        "QAIO_FIT": "off",
        "QAIO_PROMPTS": brief,
        "QAIO_SESSIONS_FILE": str(home / "sessions.db"),
        "QAIO_BATCHES_FILE": str(home / "batches.db"),
        "QAIO_ALERTS": str(write_alerts(home, receiver.url, RULES)),
        "QAIO_ALERTS_OUTBOX": str(home / "alerts.db"),
        "QAIO_ALERTS_NETWORKS": "127.0.0.1",
    }
    with serve(given) as start:
        started = start()
        started.app.config["OUTBOX"] = home / "alerts.db"
        yield started
        started.app.extensions["alerts"].stop()


def told(receiver: Receiver, rule: str, text: str = "") -> list[dict[str, Any]]:
    found = [one.body["data"] for one in list(receiver.taken)]
    return [data for data in found if data["rule"] == rule and data.get("text", "") == text]


def test_a_task_s_text_is_quoted_where_the_rule_says_so(server: Server, receiver: Receiver) -> None:
    answer = server.client.post("/v1/tasks/sentiment", json={"text": "订单 1 很好"}, headers={"X-Request-Id": "req-1"})
    assert answer.status_code == 200
    until(lambda: bool(told(receiver, "quoted", "订单 1 很好")), SECONDS)
    (data,) = told(receiver, "quoted", "订单 1 很好")
    assert (data["source"], data["place"]) == ("live", "req-1")
    assert data["labels"]["sentiment"]["label"] == answer.get_json()["label"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_tells_once_streamed_or_not(stream: bool, server: Server, receiver: Receiver) -> None:
    text = f"订单 {20 + stream} 很好"
    assert server.post("/chat", {"text": text, "stream": stream}).status_code == 200
    server.post("/v1/tasks/sentiment", {"text": f"订单 {30 + stream} 在后"})
    until(lambda: bool(told(receiver, "quoted", f"订单 {30 + stream} 在后")), SECONDS)
    assert len(told(receiver, "quoted", text)) == 1


def test_what_users_write_stays_here_unless_the_rule_says_so(server: Server, receiver: Receiver) -> None:
    server.post("/v1/analyze", {"text": "保密的话", "tasks": ["sentiment"]})
    until(lambda: bool(told(receiver, "labelled")), SECONDS)
    assert all("保密" not in json.dumps(data, ensure_ascii=False) for data in told(receiver, "labelled"))


def test_a_request_that_is_sent_again_and_a_line_that_is_asked_again_tell_once(
    server: Server, receiver: Receiver
) -> None:
    for _ in range(2):
        headers = {"Idempotency-Key": "order-40"}
        server.client.post("/v1/tasks/sentiment", json={"text": "订单 40 很好"}, headers=headers)
        line = LineCall(None, "batch_1/7")
        assert call(server.app, line, "/v1/tasks/sentiment", {"text": "订单 41 很好"}, "r").is_good
    server.post("/v1/tasks/sentiment", {"text": "订单 42 在后"})
    until(lambda: bool(told(receiver, "quoted", "订单 42 在后")), SECONDS)
    assert len(told(receiver, "quoted", "订单 40 很好")) == 1
    (line_told,) = told(receiver, "quoted", "订单 41 很好")
    assert (line_told["source"], line_told["place"]) == ("batch", "batch_1/7")


def test_what_was_refused_tells_nobody(server: Server, receiver: Receiver) -> None:
    assert server.post("/v1/tasks/sentiment", {"text": "订单 50 很好", "odd": 1}).status_code == 400
    server.post("/v1/tasks/sentiment", {"text": "订单 51 在后"})
    until(lambda: bool(told(receiver, "quoted", "订单 51 在后")), SECONDS)
    assert told(receiver, "quoted", "订单 50 很好") == []


def test_a_rate_is_counted_over_requests(server: Server, receiver: Receiver) -> None:
    for _ in range(3):
        server.post("/v1/tasks/sentiment", {"text": "又坏了"})
    until(lambda: bool(told(receiver, "many")), SECONDS)
    assert told(receiver, "many")[0]["rate"] == {"count": 3, "within_s": 3600.0}


def test_metrics_tell_how_alerts_fare(server: Server, receiver: Receiver) -> None:
    shown = server.client.get("/metrics").get_data(as_text=True)
    assert 'qaio_alerts_total{outcome="fired",rule="quoted"}' in shown
    assert 'qaio_alert_messages_total{channel="ops",outcome="sent"}' in shown


def test_of_what_is_held_back_only_that_is_kept_which_may_be_asked_again(server: Server) -> None:
    def outbox(question: str) -> int:
        with closing(sqlite3.connect(server.app.config["OUTBOX"])) as db:
            return int((db.execute(question).fetchone() or (0,))[0])

    before = outbox("SELECT count(*) FROM seen")
    for number in range(4):
        assert server.post("/v1/tasks/sentiment", {"text": f"停一停 {number}"}).status_code == 200
    for _ in range(2):
        headers = {"Idempotency-Key": "停一停".encode().hex()}
        asked = server.client.post("/v1/tasks/sentiment", json={"text": "停一停"}, headers=headers)
        assert asked.status_code == 200
    until(lambda: outbox("SELECT held FROM rules WHERE name = 'paused'") == 4, SECONDS)
    assert outbox("SELECT count(*) FROM seen") == before + 2
