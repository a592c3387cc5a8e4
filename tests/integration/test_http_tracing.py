"""Spans of requests at a collector on loopback: their names, parents, attributes and times, and none of their words."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from qwen_allinone.telemetry import tracing
from tests.integration.conftest import Server, StartServer, until
from tests.support.collector import Collector, Seen, collecting

pytest.importorskip("opentelemetry.sdk.trace", reason="pip install -r requirements-otel.txt")
pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="pip install -r requirements-otel.txt")

TEXT = "我的密码是hunter2，今天很开心"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SERVER, ERROR = 2, 2  # of the protocol's enumerations SpanKind and StatusCode


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        yield collector


@pytest.fixture
def server(collector: Collector, start_server: StartServer) -> Server:
    return start_server(QAIO_CACHE_MB="10")


def spans(collector: Collector, request_id: str, children: int) -> list[Seen]:
    """The server's span, then its children."""
    until(lambda: len(collector.of_request(request_id)) == 1 + children)
    return collector.of_request(request_id)


def test_a_chat_is_a_span_of_the_callers_trace_with_what_it_took_its_time_for(
    server: Server, collector: Collector
) -> None:
    before = time.time_ns()
    headers = {"X-Request-Id": "chat-1", "traceparent": f"00-{TRACE}-{SPAN}-01"}
    answer = server.client.post("/chat", json={"text": TEXT}, headers=headers)
    assert answer.status_code == 200
    after = time.time_ns()
    until(lambda: len(collector.of_request("chat-1")) >= 6)
    request, *children = collector.of_request("chat-1")
    assert (request.name, request.kind, request.trace_id, request.parent) == ("POST /chat", SERVER, TRACE, SPAN)
    tokens = [request.attributes.pop(f"gen_ai.usage.{side}_tokens") for side in ("input", "output")]
    assert min(tokens) > 1
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": "/chat",
        "http.response.status_code": 200,
        "qaio.request_id": "chat-1",
        "qaio.task": "sentiment+chat",
        "qaio.answers": 2,
        "gen_ai.response.model": "demo",
    }
    assert request.resource["service.name"] == "qwen-allinone" and request.resource["service.version"]
    phases = [(child.attributes["qaio.task"], child.name) for child in children]
    assert [name for task, name in phases if task == "chat"] == ["waiting", "prefill", "decode"]
    assert [name for task, name in phases if task == "sentiment"][:2] == ["waiting", "prefill"]
    assert all(child.trace_id == TRACE for child in children)
    second = 1_000_000_000  # two clocks, and a record that is made a moment after the answer
    assert before - second < request.began < request.ended < after + second
    for child in children:
        assert request.began <= child.began <= child.ended <= request.ended
    for one, next_one in zip(children, children[1:], strict=False):
        assert one.ended <= next_one.began + 1000, "the reply comes after the sentiment, and phases follow each other"


def test_the_collector_gets_no_text(server: Server, collector: Collector) -> None:
    answer = server.client.post("/chat", json={"text": TEXT}, headers={"X-Request-Id": "chat-2"}).get_json()
    server.client.post("/chat?hunter2=1", json={"text": "", "hunter2": 1}, headers={"X-Request-Id": "bad-2"})
    server.client.open("/hunter2", method="HUNTER2", headers={"X-Request-Id": "path-2", "traceparent": "hunter2"})
    spans(collector, "bad-2", 0)
    (unknown,) = spans(collector, "path-2", 0)
    until(lambda: len(collector.of_request("chat-2")) >= 6)
    assert (unknown.name, unknown.attributes["http.response.status_code"]) == ("_OTHER unknown", 404)
    assert len(answer["response"]) > 1
    for word in ("hunter2", "HUNTER2", "密码", "开心", answer["response"], answer["sentiment"]):
        assert word.encode() not in collector.raw
    assert set(collector.paths) == {"/v1/traces"}


def test_without_a_caller_each_request_begins_a_trace(server: Server, collector: Collector) -> None:
    for name in ("alone-1", "alone-2"):
        headers = {"X-Request-Id": name, "traceparent": f"00-{TRACE.upper()}-{SPAN}-01"}
        server.client.post("/v1/tasks/sentiment", json={"text": ""}, headers=headers)
    (one,), (other,) = spans(collector, "alone-1", 0), spans(collector, "alone-2", 0)
    assert one.name == "POST /v1/tasks/sentiment"
    assert one.parent == other.parent == ""
    assert len({one.trace_id, other.trace_id, TRACE, "0" * 32}) == 4


def test_a_trace_that_its_caller_does_not_keep_is_not_sent(server: Server, collector: Collector) -> None:
    for name, flags in (("dropped", "00"), ("kept", "01")):
        headers = {"X-Request-Id": name, "traceparent": f"00-{TRACE}-{SPAN}-{flags}"}
        server.client.post("/v1/tasks/sentiment", json={"text": ""}, headers=headers)
    spans(collector, "kept", 0)
    assert collector.of_request("dropped") == []


def test_errors_carry_their_code_and_only_the_services_own_are_marked(
    server: Server, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.client.post("/chat", json={"text": ""}, headers={"X-Request-Id": "empty"})
    monkeypatch.setattr(type(server.service), "chat", lambda *_, **__: 1 // 0)
    server.client.post("/chat", json={"text": TEXT}, headers={"X-Request-Id": "broken"})
    (empty,), (broken,) = spans(collector, "empty", 0), spans(collector, "broken", 0)
    assert (empty.attributes["error.type"], empty.attributes["http.response.status_code"]) == ("empty_input", 400)
    assert (broken.attributes["error.type"], broken.attributes["http.response.status_code"]) == ("internal_error", 500)
    assert (empty.status, broken.status) == (0, ERROR)


def test_a_remembered_answer_took_no_time(server: Server, collector: Collector) -> None:
    for name in ("computed", "remembered"):
        server.client.post("/v1/tasks/sentiment", json={"text": TEXT}, headers={"X-Request-Id": name})
    until(lambda: len(collector.of_request("computed")) >= 3)
    (remembered,) = spans(collector, "remembered", 0)
    assert remembered.attributes["gen_ai.usage.output_tokens"] == 0


def test_of_many_answers_the_first_have_spans_of_their_own(server: Server, collector: Collector) -> None:
    texts = [f"第 {number} 单很满意" for number in range(20)]
    body = {"model": "demo", "input": texts}
    answer = server.client.post("/v1/classify", json=body, headers={"X-Request-Id": "many"})
    assert answer.status_code == 200, answer.get_json()
    until(lambda: bool(collector.of_request("many")))
    request, *children = collector.of_request("many")
    assert (request.attributes["qaio.answers"], request.attributes["qaio.task"]) == (20, "sentiment")
    assert [child.name for child in children].count("prefill") == 16


@pytest.mark.parametrize("off", [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_SAMPLER": "always_off"}])
def test_opentelemetrys_own_ways_to_be_silent_hold(
    collector: Collector,
    start_server: StartServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    off: dict[str, str],
) -> None:
    for name, value in off.items():
        monkeypatch.setenv(name, value)
    server = start_server()
    assert server.client.post("/v1/tasks/sentiment", json={"text": TEXT}).status_code == 200
    server.app.extensions["telemetry"].close()
    assert collector.paths == [] and "could not be told of" not in caplog.text


def test_supervisors_questions_are_no_spans(server: Server, collector: Collector) -> None:
    for path in ("/livez", "/readyz", "/health", "/metrics", "/v1/tasks"):
        server.client.get(path, headers={"X-Request-Id": "asked"})
    until(lambda: bool(collector.of_request("asked")))
    assert [span.name for span in collector.spans] == ["GET /v1/tasks"]


def test_the_operators_name_for_the_service_counts(
    collector: Collector, start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop-labels")
    start_server().client.get("/v1/tasks", headers={"X-Request-Id": "named"})
    (span,) = spans(collector, "named", 0)
    assert span.resource["service.name"] == "shop-labels"


def test_a_collector_that_refuses_costs_one_line_and_no_answer(
    server: Server, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    tracing._now_and_then._last = None  # whatever tests before have complained of
    collector.status = 400
    for number in range(5):
        headers = {"X-Request-Id": f"refused-{number}"}
        assert server.client.post("/v1/tasks/sentiment", json={"text": TEXT}, headers=headers).status_code == 200
        until(lambda many=number: len(collector.paths) > many)
    collector.status = 200
    server.client.get("/v1/tasks", headers={"X-Request-Id": "taken"})
    spans(collector, "taken", 0)
    said = [record.getMessage() for record in caplog.records if record.name.startswith("opentelemetry")]
    assert len(said) == 1 and "400" in said[0]


def test_an_end_does_not_wait_for_a_collector_that_is_silent(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that takes the connection and then says nothing; the exporter alone would wait ten seconds and more."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv(
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}/v1/traces"
        )
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        server = start_server()
        assert server.client.get("/v1/tasks").status_code == 200
        connection, _ = silent.accept()
        closing = threading.Thread(target=server.app.extensions["telemetry"].close, daemon=True)
        closing.start()
        closing.join(8.0)
        assert not closing.is_alive()
        connection.close()


def test_a_variable_that_opentelemetry_cannot_read_costs_the_spans_and_not_the_service(
    collector: Collector,
    start_server: StartServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "-1")
    server = start_server()
    assert server.client.get("/v1/tasks").status_code == 200
    assert server.app.extensions["telemetry"].tracing is None
    assert [r.levelname for r in caplog.records if "no spans are sent" in r.getMessage()] == ["ERROR"]
