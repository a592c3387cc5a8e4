"""POST /chat as an event stream."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from werkzeug.test import TestResponse

from qwen_allinone.service import ChatAnswer
from tests.integration.conftest import Gate, Server, StartServer, until
from tests.support.events import Event, read_events, text_of, without_pings

TEXT = "今天心情特别差，工作也不顺利"


def ask(server: Server, text: str = TEXT, **headers: str) -> TestResponse:
    """The answer while it is made; to be closed."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return server.client.post("/chat", json={"text": text, "stream": True}, headers=named, buffered=False)


def events(answer: TestResponse) -> list[Event]:
    assert answer.status_code == 200, answer.get_data(as_text=True)
    assert answer.mimetype == "text/event-stream"
    found = list(read_events(answer.iter_encoded()))
    answer.close()
    return found


@contextmanager
def spied(server: Server) -> Iterator[list[ChatAnswer]]:
    """What the service answered."""
    answers: list[ChatAnswer] = []
    service: Any = server.service
    chat = service.chat

    def spy(*args: Any, **kwargs: Any) -> ChatAnswer:
        answers.append(chat(*args, **kwargs))
        return answers[-1]

    service.chat = spy
    try:
        yield answers
    finally:
        del service.chat


def on_reply(server: Server, act: Callable[[], None]) -> None:
    """Call `act` when a reply is about to be asked of the engine: the label is known, none of the reply is."""
    engine: Any = server.service.engine
    submit = engine.submit

    def submit_and_act(work: Any, **kwargs: Any) -> Any:
        if work.wanted_ids is None:
            act()
        return submit(work, **kwargs)

    engine.submit = submit_and_act


def test_the_sentiment_comes_first_then_the_reply_in_pieces_then_the_end(server: Server) -> None:
    with spied(server) as answers:
        answer = ask(server)
        assert answer.headers["X-Accel-Buffering"] == "no" and answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Request-Id"]
        found = without_pings(events(answer))
    (made,) = answers
    assert [event.name for event in found] == ["sentiment", *["delta"] * (len(found) - 2), "done"]
    assert text_of(found) == made.reply.text and len(found) > 4
    probability = (made.sentiment.probabilities or {})["负面"]
    assert found[0].data == {"label": "负面", "emoji": "😢", "probability": pytest.approx(probability, abs=1e-4)}
    done = found[-1].data
    assert list(done) == ["finish_reason", "usage", "timings"]
    assert done["finish_reason"] == made.reply.result.finish_reason
    results = (made.sentiment.result, made.reply.result)
    prompt, completion = sum(r.prompt_tokens for r in results), sum(len(r.ids) for r in results)
    assert done["usage"] == {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "reused_tokens": sum(r.reused_tokens for r in results),
    }
    assert list(done["timings"]) == ["queue_ms", "prefill_ms", "decode_ms"]
    assert all(0 <= value < 60_000 for value in done["timings"].values())


@pytest.mark.parametrize(
    ("accept", "stream", "streamed"),
    [
        ("text/event-stream", None, True),
        ("text/event-stream, application/json;q=0.5", None, True),
        ("application/json, text/event-stream", None, False),
        ("*/*", None, False),
        ("", None, False),
        ("text/html", None, False),
        ("text/event-stream", False, False),
        ("application/json", True, True),
        ("*/*", True, True),
    ],
)
def test_the_body_decides_and_else_the_accept_header(
    server: Server, accept: str, stream: bool | None, streamed: bool
) -> None:
    body = {"text": "好"} | ({} if stream is None else {"stream": stream})
    answer = server.client.post("/chat", json=body, headers={"Accept": accept} if accept else {})
    assert answer.status_code == 200
    assert answer.mimetype == ("text/event-stream" if streamed else "application/json")
    if not streamed:
        assert set(answer.get_json()) == {"sentiment", "response"}


@pytest.mark.parametrize("stream", ["true", 1, 0, "", [], {}, 1.0])
def test_a_stream_that_is_no_boolean_is_a_400_that_says_what_is(server: Server, stream: object) -> None:
    answer = server.post("/chat", {"text": "好", "stream": stream})
    assert (answer.status_code, answer.get_json()) == (
        400,
        {"error": "stream 必须是 true 或 false", "code": "invalid_input"},
    )


@pytest.mark.parametrize("text", ["", "  \n ", "\u200b", "好" * 20_000])
def test_a_bad_text_is_a_400_and_no_stream(server: Server, text: str) -> None:
    answer = ask(server, text)
    assert answer.status_code == 400 and answer.mimetype == "application/json"
    assert answer.get_json()["code"] in ("empty_input", "input_too_long")
    lone = server.post("/chat", b'{"text": "\\ud83d", "stream": true}')
    assert (lone.status_code, lone.get_json()["code"]) == (400, "invalid_input")


def test_the_sentiment_is_out_before_a_token_of_the_reply_is_computed(start_server: StartServer) -> None:
    server = start_server()
    gate = Gate(server)
    on_reply(server, gate.shut)
    answer = ask(server)
    stream = read_events(answer.iter_encoded())
    assert next(event for event in stream if event.name != "ping").name == "sentiment"
    gate.open()
    assert [event.name for event in stream][-1] == "done"
    answer.close()


def test_a_stream_that_waits_pings(start_server: StartServer) -> None:
    server = start_server(QAIO_PING_S="0.1")
    gate = Gate(server)
    gate.shut()
    answer = ask(server)
    stream = read_events(answer.iter_encoded())
    assert [next(stream).name for _ in range(4)] == ["ping"] * 4
    on_reply(server, gate.shut)
    gate.open()
    until_sentiment = [next(stream).name for _ in range(2)]
    assert "sentiment" in until_sentiment
    assert [event.name for event in [next(stream), next(stream)]][-1] == "ping"
    gate.open()
    assert [event.name for event in stream][-1] == "done"
    answer.close()


def test_a_failure_halfway_is_an_error_event_and_the_next_stream_is_whole(start_server: StartServer) -> None:
    server = start_server()
    model: Any = server.service.engine.model
    forward = model.forward

    def fail_once(*_: Any) -> Any:
        model.forward = forward
        raise RuntimeError("password=hunter2 in /srv/secret")

    on_reply(server, lambda: setattr(model, "forward", fail_once))
    found = without_pings(events(ask(server)))
    assert [event.name for event in found] == ["sentiment", "error"]
    assert found[-1].data["code"] == "engine_failed" and "hunter2" not in str(found)
    model.forward = forward
    del server.service.engine.submit  # type: ignore[attr-defined]
    assert events(ask(server))[-1].name == "done"


def test_a_stream_that_takes_too_long_ends_with_an_error_event(start_server: StartServer) -> None:
    server = start_server()
    gate = Gate(server)
    on_reply(server, gate.shut)
    answer = ask(server, X_Timeout_Ms="300")
    stream = read_events(answer.iter_encoded())
    first = next(event for event in stream if event.name != "ping")
    assert first.name == "sentiment"
    time.sleep(0.4)
    gate.open()
    rest = without_pings(stream)
    answer.close()
    assert rest[-1].name == "error" and rest[-1].data["code"] == "deadline_exceeded"


def test_a_full_server_refuses_a_stream_with_a_status(start_server: StartServer) -> None:
    server = start_server(QAIO_SLOTS="1", QAIO_MAX_WAITING="0")
    gate = Gate(server)
    gate.shut()
    held = ask(server)
    refused = ask(server)
    assert (refused.status_code, refused.get_json()["code"]) == (503, "server_busy")
    assert int(refused.headers["Retry-After"]) >= 1
    gate.open()
    assert events(held)[-1].name == "done"


def test_a_client_that_leaves_frees_its_slot_within_two_steps(start_server: StartServer) -> None:
    server = start_server()
    answer = ask(server)
    stream = read_events(answer.iter_encoded())
    assert next(event for event in stream if event.name == "delta")
    gate = Gate(server)
    gate.shut()
    assert gate.entered.wait(30)
    closing = time.monotonic()
    leaver = threading.Thread(target=answer.close)
    leaver.start()
    time.sleep(0.1)
    gate.steps = 0
    gate.open()
    until(lambda: server.service.engine.running == 0 and server.service.engine.admitted == 0)
    leaver.join(30)
    assert gate.steps <= 2 and time.monotonic() - closing < 30
    assert events(ask(server))[-1].name == "done"


def test_a_stream_is_charged_for_what_it_generated_once_and_also_when_left(start_server: StartServer) -> None:
    server = start_server(QAIO_RATE_TOKENS="100000")

    def used() -> int:
        answer = server.client.post("/v1/tasks/nope", json={})
        return 100_000 - int(answer.headers["X-RateLimit-Remaining"])

    before = used()
    done = events(ask(server))[-1].data
    assert used() - before == done["usage"]["completion_tokens"] > 2
    before = used()
    answer = ask(server)
    stream = read_events(answer.iter_encoded())
    heard = [next(event for event in stream if event.name == "delta")]
    answer.close()
    until(lambda: server.service.engine.admitted == 0)
    assert 1 <= used() - before <= 130 and heard  # the label may come from the cache, which costs nothing


def metric(server: Server, beginning: str) -> float:
    """The sum of all samples whose line begins so."""
    lines = server.client.get("/metrics").get_data(as_text=True).splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(beginning))


def test_metrics_tell_of_a_stream_when_it_has_ended_and_of_one_that_was_left(start_server: StartServer) -> None:
    server = start_server()
    found = events(ask(server))
    assert metric(server, "qaio_generation_tokens_total") == found[-1].data["usage"]["completion_tokens"]
    cancelled = 'qaio_requests_rejected_total{code="cancelled"}'
    assert metric(server, cancelled) == 0
    on_reply(server, Gate(server).shut)
    answer = ask(server)
    assert "sentiment" in [next(stream).name for stream in [read_events(answer.iter_encoded())] for _ in range(2)]
    answer.close()
    assert metric(server, cancelled) == 1
