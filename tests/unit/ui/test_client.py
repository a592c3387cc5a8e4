"""The page's client over real HTTP: what it asks, what it understands, what it says when things go wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from tests.e2e.conftest import free_port
from tests.support.relay import Planted, Relay, relay
from ui.client import Answer, Api, ApiError, Delta, Sentiment, Task

T = TypeVar("T")
SENTIMENT = Task("sentiment", "判断情感", "label", ("text",), ("正面", "负面"), detail=False)


def given(data: Any, status: int = 200, **headers: str) -> Planted:
    return Planted(status, json.dumps(data, ensure_ascii=False).encode(), headers)


def ask(address: str, work: Callable[[Api], Awaitable[T]], key: str | None = None) -> T:
    async def run() -> T:
        api = Api(address, key)
        try:
            return await work(api)
        finally:
            await api.close()

    return asyncio.run(run())


def body_of(*fields: str) -> dict[str, Any]:
    schema = {"properties": dict.fromkeys(fields, {"type": "string"})}
    return {"post": {"requestBody": {"content": {"application/json": {"schema": schema}}}}}


def describe(front: Relay, *chat_fields: str, routes: bool = False) -> None:
    task = {"name": "sentiment", "description": "判断情感", "kind": "label", "inputs": {"text": {}}, "labels": ["正面"]}
    document = {"paths": {"/chat": body_of("text", *chat_fields), "/v1/tasks/sentiment": body_of("text", "detail")}}
    if routes:
        document["paths"]["/v1/route"] = body_of("text", "detail")
    front.plant("/v1/tasks", given({"tasks": [task]}, **{"X-Model": "demo"}))
    front.plant("/openapi.json", given(document))


def events(*named: tuple[str, Any]) -> bytes:
    return "".join(f"event: {n}\ndata: {json.dumps(d, ensure_ascii=False)}\n\n" for n, d in named).encode()


async def heard(api: Api, session: str | None = None) -> list[Sentiment | Delta]:
    return [event async for event in api.chat("你好", session)]


def test_what_the_service_can_do_is_read_from_its_own_description() -> None:
    with relay() as front:
        describe(front, "session", "session_id")
        about = ask(front.address, Api.about)
        assert (about.model, about.sessions, about.task("sentiment")) == (
            "demo",
            True,
            Task("sentiment", "判断情感", "label", ("text",), ("正面",), detail=True),
        )
        assert about.router is None and about.jobs == about.tasks
        describe(front)
        assert ask(front.address, Api.about).sessions is False


def test_a_service_that_picks_tasks_itself_has_one_more_job() -> None:
    with relay() as front:
        describe(front, routes=True)
        about = ask(front.address, Api.about)
        assert [task.name for task in about.jobs] == ["sentiment", "/v1/route"]
        router = about.task("/v1/route")
        assert router is not None
        front.plant("/v1/route", given({"task": "sentiment", "label": "正面"}))
        assert ask(front.address, lambda api: api.run(router, {"text": "好"})) == Answer(label="正面", task="sentiment")
        assert json.loads(front.seen[-1].body) == {"text": "好", "detail": True}


@pytest.mark.parametrize(
    ("answer", "understood"),
    [
        ({"label": "正面"}, Answer(label="正面", task="sentiment")),
        (
            {"label": "正面", "detail": {"probabilities": {"正面": 0.9, "负面": 0.1}}},
            Answer(label="正面", probabilities={"正面": 0.9, "负面": 0.1}, task="sentiment"),
        ),
        ({"text": "好的"}, Answer(text="好的", task="sentiment")),
        ({"items": ["服务", {"text": "房间"}]}, Answer(items=("服务", '{"text": "房间"}'), task="sentiment")),
    ],
)
def test_every_kind_of_answer_is_understood(answer: dict[str, Any], understood: Answer) -> None:
    with relay() as front:
        front.plant("/v1/tasks/sentiment", given({"task": "sentiment", **answer}))
        assert ask(front.address, lambda api: api.run(SENTIMENT, {"text": "好"}), key="k") == understood
        assert json.loads(front.seen[0].body) == {"text": "好"}
        assert front.seen[0].headers["Authorization"] == "Bearer k"


def test_a_stream_is_read_event_by_event_whatever_characters_it_holds() -> None:
    odd = "一\u2028二\u0085三\x0b四\n五"
    first = ("sentiment", {"label": "正面", "emoji": "😄", "probability": 0.97, "session_id": "s-1"})
    with relay() as front:
        describe(front, "session", "session_id")
        front.plant("/chat", Planted(200, b": ping\n\n" + events(first, ("delta", {"text": odd}), ("done", {}))))
        assert ask(front.address, heard) == [Sentiment("正面", "😄", 0.97, "s-1"), Delta(odd)]
        ask(front.address, lambda api: heard(api, "s-1"))
        asked = [json.loads(seen.body) for seen in front.seen if seen.path == "/chat"]
        assert asked == [
            {"text": "你好", "stream": True, "session": True},
            {"text": "你好", "stream": True, "session_id": "s-1"},
        ]


@pytest.mark.parametrize(
    ("stream", "said"),
    [
        (events(("delta", {"text": "半"})), "中断"),
        (
            events(("delta", {"text": "半"}), ("error", {"error": "模型计算卡住", "code": "engine_stuck"})),
            "模型计算卡住",
        ),
        (b"event: delta\ndata: {\n\n", "不合约定"),
        (events(("sentiment", {})), "不合约定"),
    ],
)
def test_a_stream_that_does_not_end_well_is_an_error(stream: bytes, said: str) -> None:
    with relay() as front:
        describe(front)
        front.plant("/chat", Planted(200, stream))
        with pytest.raises(ApiError, match=said):
            ask(front.address, heard)


@pytest.mark.parametrize(
    ("answer", "said", "code", "retry_after"),
    [
        (
            given({"error": "服务器繁忙", "code": "server_busy"}, 503, **{"Retry-After": "3"}),
            "服务器繁忙",
            "server_busy",
            3.0,
        ),
        (
            given(
                {"error": {"message": "请求太频繁", "type": "", "param": None, "code": "rate_limited"}},
                429,
                **{"Retry-After": "9999"},
            ),
            "请求太频繁",
            "rate_limited",
            120.0,
        ),
        (given({"error": "x", "code": "y"}, 503, **{"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}), "x", "y", 0.0),
        (given({"error": "x", "code": "y"}, 503, **{"Retry-After": "soon"}), "x", "y", None),
        (given({"error": "...", "code": "unauthorized"}, 401), "QWEN_UI_API_KEY", "unauthorized", None),
        (Planted(502, b"<html>"), "HTTP 502", "", None),
        (given({"error": None}, 500), "HTTP 500", "", None),
        (Planted(200, b"<html>"), "不合约定", "", None),
        (given([]), "不合约定", "", None),
        (Planted(0), "连接中断", "broken", None),
    ],
)
def test_what_goes_wrong_is_told_in_words_for_the_visitor(
    answer: Planted, said: str, code: str, retry_after: float | None
) -> None:
    with relay() as front:
        front.plant("/v1/tasks/sentiment", answer)
        with pytest.raises(ApiError, match=said) as caught:
            ask(front.address, lambda api: api.run(SENTIMENT, {"text": "好"}))
        assert (caught.value.code, caught.value.retry_after) == (code, retry_after)


def test_a_service_that_is_not_there_is_named() -> None:
    address = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ApiError, match=address):
        ask(address, Api.about)
