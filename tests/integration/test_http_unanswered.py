"""A request that ends without an answer has cost something: it is charged, counted and told like any other."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.integration.conftest import Gate, Later, Server, StartServer, until
from tests.integration.test_http_observe import Log
from tests.integration.test_http_observe import log as log  # a fixture
from tests.integration.test_http_stream import metric

TEXT = "今天心情特别差，工作也不顺利"
LIMIT = 100_000


def used(server: Server) -> int:
    """Tokens charged so far."""
    answer = server.client.post("/v1/tasks/nope", json={})
    return LIMIT - int(answer.headers["X-RateLimit-Remaining"])


def slow_down(server: Server, step_s: float) -> None:
    model: Any = server.service.engine.model
    forward = model.forward
    model.forward = lambda *given: time.sleep(step_s) or forward(*given)


def fail_after(server: Server, steps: int) -> None:
    """Let so many steps pass and the next one fail."""
    model: Any = server.service.engine.model
    forward, left = model.forward, [steps]

    def forward_or_fail(*given: Any) -> Any:
        left[0] -= 1
        if left[0] == -1:
            raise RuntimeError("planted")
        return forward(*given)

    model.forward = forward_or_fail


def chat(server: Server, *, stream: bool, timeout_ms: int | None = None) -> Any:
    headers = {"X-Timeout-Ms": str(timeout_ms)} if timeout_ms else {}
    answer = server.client.post("/chat", json={"text": TEXT, "stream": stream}, headers=headers)
    assert answer.data  # to its end
    return answer


@pytest.mark.parametrize("stream", [False, True])
def test_what_a_late_chat_generated_is_charged_counted_and_told(
    start_server: StartServer, log: Log, stream: bool
) -> None:
    server = start_server(QAIO_RATE_TOKENS=str(LIMIT), QAIO_CACHE_MB="0")
    slow_down(server, 0.04)
    answer = chat(server, stream=stream, timeout_ms=400)
    assert answer.status_code == (200 if stream else 504) and "deadline_exceeded" in answer.get_data(as_text=True)
    line = log.requests[-1]
    assert (line["code"], line["task"], line["finish_reason"]) == (
        "deadline_exceeded",
        "sentiment+chat",
        "label+unfinished",
    )
    assert line["generated_tokens"] > 2 and line["prompt_tokens"] > 100
    assert used(server) == line["generated_tokens"] == metric(server, "qaio_generation_tokens_total")
    assert metric(server, "qaio_prompt_tokens_total") == line["prompt_tokens"]
    assert metric(server, "qaio_time_to_first_token_seconds_count") == 1, "only the label was answered"


@pytest.mark.parametrize("stream", [False, True])
def test_what_a_failed_chat_generated_is_charged_counted_and_told(
    start_server: StartServer, log: Log, stream: bool
) -> None:
    server = start_server(QAIO_RATE_TOKENS=str(LIMIT), QAIO_CACHE_MB="0")
    fail_after(server, 6)
    assert "engine_failed" in chat(server, stream=stream).get_data(as_text=True)
    line = log.requests[-1]
    # One step for the label, five for the reply.
    assert (line["code"], line["finish_reason"], line["generated_tokens"]) == ("engine_failed", "label+unfinished", 6)
    assert used(server) == 6 == metric(server, "qaio_generation_tokens_total")


def test_a_late_completion_is_charged_too(start_server: StartServer) -> None:
    server = start_server(QAIO_RATE_TOKENS=str(LIMIT))
    slow_down(server, 0.04)
    body = {"model": "demo", "messages": [{"role": "user", "content": TEXT}], "temperature": 0}
    answer = server.client.post("/v1/chat/completions", json=body, headers={"X-Timeout-Ms": "400"})
    assert answer.status_code == 504
    assert 1 <= used(server) == metric(server, "qaio_generation_tokens_total")


def test_a_request_that_was_never_begun_costs_nothing(start_server: StartServer, log: Log) -> None:
    server = start_server(QAIO_SLOTS="1", QAIO_RATE_TOKENS=str(LIMIT), QAIO_CACHE_MB="0")
    gate = Gate(server)
    gate.shut()
    busy = Later(lambda: server.client.post("/v1/tasks/sentiment", json={"text": "别的"}))
    assert gate.entered.wait(30)
    late = Later(lambda: chat(server, stream=False, timeout_ms=200))
    until(lambda: server.service.engine.waiting == 1)
    time.sleep(0.3)
    gate.open()
    assert (late.answer().status_code, busy.answer().status_code) == (504, 200)
    line = next(line for line in log.requests if line["code"] == "deadline_exceeded")
    assert (line["task"], line["prompt_tokens"], line["generated_tokens"]) == (None, 0, 0)
    assert used(server) == 1, "the other one's label"


def test_the_tasks_of_one_call_that_were_done_are_charged_though_another_fails(start_server: StartServer) -> None:
    server = start_server(QAIO_RATE_TOKENS=str(LIMIT), QAIO_CACHE_MB="0")
    slow_down(server, 0.1)  # a label takes one step, a summary several
    body = {"text": TEXT, "tasks": ["sentiment", "summary"]}
    answer = server.client.post("/v1/analyze", json=body, headers={"X-Timeout-Ms": "300"})
    assert answer.status_code == 504
    assert 2 <= used(server) == metric(server, "qaio_generation_tokens_total")
