"""What a request leaves behind: one log line, one audit line, its metrics, and none of its words."""

from __future__ import annotations

import io
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Response

from qwen_allinone.telemetry.formatting import line_formatter
from tests.integration.conftest import Gate, Later, Server, StartServer, until
from tests.support.tasks import abstaining

TEXT = "我的密码是hunter2，今天很开心"
FIELDS = [
    "request_id",
    "method",
    "route",
    "status",
    "code",
    "caller",
    "task",
    "finish_reason",
    "cache",
    "prompt_tokens",
    "reused_tokens",
    "generated_tokens",
    "queue_ms",
    "prefill_ms",
    "decode_ms",
    "total_ms",
]


class Log:
    """Everything logged, in the service's own format."""

    def __init__(self, *, show_text: bool) -> None:
        self._stream = io.StringIO()
        self.handler = logging.StreamHandler(self._stream)
        self.handler.setFormatter(line_formatter(as_json=True, show_text=show_text))

    @property
    def text(self) -> str:
        return self._stream.getvalue()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]

    @property
    def requests(self) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["logger"] == "qwen_allinone.request"]


@pytest.fixture
def log(request: pytest.FixtureRequest) -> Iterator[Log]:
    log = Log(show_text=getattr(request, "param", False))
    root = logging.getLogger()
    root.addHandler(log.handler)
    root.setLevel(logging.INFO)
    yield log
    root.removeHandler(log.handler)


def samples(server: Server, name: str) -> list[str]:
    text = server.client.get("/metrics").get_data(as_text=True)
    return [line for line in text.splitlines() if line.startswith(name)]


def test_a_chat_is_one_line_with_its_costs(server: Server, log: Log) -> None:
    answer = server.client.post("/chat", json={"text": TEXT}, headers={"X-Request-Id": "mine-1"})
    assert answer.status_code == 200
    (line,) = log.requests
    assert list(line) == ["timestamp", "level", "logger", "pid", "event", *FIELDS]
    told = {name: line[name] for name in ("request_id", "method", "route", "status", "code", "caller", "task")}
    assert told == {
        "request_id": "mine-1",
        "method": "POST",
        "route": "/chat",
        "status": 200,
        "code": None,
        "caller": None,
        "task": "sentiment+chat",
    }
    assert line["finish_reason"] in ("label+stop", "label+length")
    assert line["prompt_tokens"] > line["reused_tokens"] > 0 and line["generated_tokens"] > 1
    assert line["total_ms"] >= line["prefill_ms"] + line["decode_ms"] > 0


TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_a_callers_trace_stands_in_the_line_beside_the_request_id(server: Server, log: Log) -> None:
    headers = {"X-Request-Id": "mine-2", "traceparent": f"00-{TRACE}-{SPAN}-01"}
    assert server.client.post("/chat", json={"text": TEXT}, headers=headers).status_code == 200
    (line,) = log.requests
    assert list(line) == ["timestamp", "level", "logger", "pid", "event", FIELDS[0], "trace_id", "span_id", *FIELDS[1:]]
    assert (line["request_id"], line["trace_id"], line["span_id"]) == ("mine-2", TRACE, SPAN)


@pytest.mark.parametrize("stream", [False, True])
def test_lines_of_a_failing_request_carry_the_callers_trace_too(
    server: Server, log: Log, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError(TEXT)

    monkeypatch.setattr(type(server.service), "chat", fail)
    headers = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
    server.client.post("/chat", json={"text": TEXT, "stream": stream}, headers=headers)
    server.client.post("/chat", json={"text": TEXT, "stream": stream})
    traced, bare = [line for line in log.lines if line["level"] == "error"]
    assert (traced["trace_id"], traced["span_id"], "RuntimeError" in traced["exception"]) == (TRACE, SPAN, True)
    assert traced["request_id"] and not bare.keys() & {"trace_id", "span_id"}


def test_a_header_that_is_no_traceparent_changes_nothing(server: Server, log: Log) -> None:
    for header in (f"00-{TRACE.upper()}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", "hunter2"):
        answer = server.client.post("/v1/tasks/sentiment", json={"text": TEXT}, headers={"traceparent": header})
        assert answer.status_code == 200
    assert [list(line)[5:] for line in log.requests] == [FIELDS] * 3
    assert "hunter2" not in log.text


def test_a_line_never_holds_what_was_said_or_answered(server: Server, log: Log) -> None:
    answer = server.post("/chat", {"text": TEXT})
    server.client.post("/chat?key=hunter2", json={"text": TEXT, "hunter2": 1}, headers={"Authorization": "hunter2"})
    server.client.get("/hunter2%0d%0aforged", headers={"X-Request-Id": "hunter2\x1b[31m", "User-Agent": "hunter2"})
    assert len(log.requests) == 3
    for word in ("hunter2", "forged", "密码", answer.get_json()["response"]):
        assert word not in log.text


@pytest.mark.parametrize("log", [True], indirect=True)
def test_what_was_said_and_answered_is_logged_if_asked_for_cut_and_escaped(start_server: StartServer, log: Log) -> None:
    server = start_server(QAIO_LOG_TEXT="1")
    text = TEXT + "\n\x1b[31m\u202e{forged}" + "好" * 600
    answer = server.post("/chat", {"text": text})
    assert server.post("/chat", b"[1]").status_code == 400
    assert server.post("/chat", b" " * 2_000_000).status_code == 413
    chat, broken, large = log.requests
    assert chat["inputs"] == {"text": text[:500]}
    assert chat["outputs"] == [answer.get_json()["sentiment"], answer.get_json()["response"][:500]]
    for line in (broken, large):
        assert (line["inputs"], line["outputs"]) == ({}, [])
    assert all(line.isprintable() for line in log.text.split("\n"))


def test_errors_carry_their_code(server: Server, log: Log) -> None:
    server.post("/chat", {"text": ""})
    server.post("/v1/tasks/nope", {"text": "x"})
    server.client.get("/nope/with/a/path")
    server.client.get("/chat")
    told = [(line["route"], line["status"], line["code"]) for line in log.requests]
    assert told == [
        ("/chat", 400, "empty_input"),
        ("/v1/tasks/<name>", 404, "unknown_task"),
        ("unknown", 404, "not_found"),
        ("unknown", 405, "method_not_allowed"),
    ]
    assert any('code="empty_input"' in line for line in samples(server, "qaio_requests_rejected_total"))


def test_made_up_paths_and_methods_do_not_make_new_series(server: Server) -> None:
    server.client.get("/warm-up")
    server.client.open("/warm-up", method="BREW")
    before = len(samples(server, "qaio_"))
    for number in range(30):
        server.client.get(f"/{number}")
        server.client.open(f"/v1/tasks/{number}", method=f"BREW{number}")
    assert len(samples(server, "qaio_")) <= before + 1


def test_supervisors_questions_are_lines_at_debug_only(server: Server, log: Log) -> None:
    for path in ("/livez", "/readyz", "/health", "/metrics"):
        server.client.get(path)
    assert log.requests == []
    logging.getLogger().setLevel(logging.DEBUG)
    server.client.get("/livez")
    assert [line["level"] for line in log.requests] == ["debug"]


def test_a_planted_exception_is_one_line_without_its_words(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    server = start_server()
    log.handler.stream.truncate(0)
    log.handler.stream.seek(0)
    said = 'hunter2\n{"level": "critical", "event": "forged"}\n'

    def fail(text: str, *_: object, **__: object) -> Any:
        raise ValueError(text + said)

    monkeypatch.setattr(server.service, "chat", fail)
    assert server.post("/chat", {"text": TEXT}).status_code == 500
    error, line = log.lines
    assert (error["level"], error["request_id"]) == ("error", line["request_id"])
    assert "ValueError (message left out)" in error["exception"] and "in fail" in error["exception"]
    assert (line["status"], line["code"]) == (500, "internal_error")
    assert "hunter2" not in log.text and "forged" not in log.text


def test_a_body_s_value_does_not_get_into_a_line_by_pydantic_s_errors(server: Server, log: Log) -> None:
    for body in ({"text": ["hunter2"]}, {"hunter2": "hunter2"}, b'{"text": "\\ud83dhunter2"}', b'{"text": hunter2}'):
        assert server.post("/chat", body).status_code == 400
    assert len(log.requests) == 4
    assert "hunter2" not in log.text


def test_a_request_is_finished_when_its_last_byte_is_out(start_server: StartServer, log: Log) -> None:
    server = start_server()

    def drip() -> Iterator[bytes]:
        yield b"a"
        yield b"b"

    server.app.add_url_rule("/drip", view_func=lambda: Response(drip()))
    answer = server.client.get("/drip", buffered=False)
    body = iter(answer.response)
    assert next(body) == b"a"
    assert log.requests == []
    assert next(body) == b"b"
    answer.close()
    assert [line["route"] for line in log.requests] == ["/drip"]


def test_files_of_the_documentation_are_told_of_too(server: Server, log: Log) -> None:
    page = server.client.get("/docs/swagger")
    assert page.status_code == 200
    asset = server.client.get("/docs/swagger/css/swagger-ui.css")
    assert asset.status_code == 200
    asset.close()
    assert [line["status"] for line in log.requests] == [200, 200]


def test_running_and_waiting_requests_are_seen(start_server: StartServer) -> None:
    server = start_server(QAIO_SLOTS="1", QAIO_CACHE_MB="0")
    gate = Gate(server)
    gate.shut()
    asked = [Later(lambda: server.post("/v1/tasks/sentiment", {"text": "今天很开心"})) for _ in range(3)]
    until(lambda: samples(server, "qaio_num_requests_waiting ") == ["qaio_num_requests_waiting 2.0"])
    assert samples(server, "qaio_num_requests_running ") == ["qaio_num_requests_running 1.0"]
    gate.open()
    assert [later.answer().status_code for later in asked] == [200] * 3
    until(lambda: samples(server, "qaio_num_requests_running ") == ["qaio_num_requests_running 0.0"])
    assert samples(server, "qaio_num_requests_waiting ") == ["qaio_num_requests_waiting 0.0"]


def test_readiness_is_seen(start_server: StartServer, tmp_path: Path) -> None:
    assert samples(start_server(), "qaio_workers_ready") == ["qaio_workers_ready 1.0"]
    broken = start_server(ready=False, QAIO_MODEL=str(tmp_path / "nothing"))
    assert samples(broken, "qaio_workers_ready") == ["qaio_workers_ready 0.0"]


def test_the_audit_file_has_a_line_for_each_request_but_supervisors(start_server: StartServer, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    server = start_server(QAIO_AUDIT_FILE=str(path))
    server.post("/chat", {"text": TEXT})
    server.client.get("/livez")
    server.post("/chat", {"text": ""})
    until(lambda: path.exists() and len(path.read_text().splitlines()) == 2)
    chat, empty = (json.loads(line) for line in path.read_text().splitlines())
    assert (chat["task"], chat["status"], chat["address"]) == ("sentiment+chat", 200, "127.0.0.1")
    assert chat["prompt_tokens"] > 0 and (empty["status"], empty["code"]) == (400, "empty_input")
    assert "hunter2" not in path.read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is where every write finds the disk full")
def test_a_full_audit_disk_costs_lines_not_answers(start_server: StartServer, tmp_path: Path, log: Log) -> None:
    (tmp_path / "audit").symlink_to("/dev/full")
    server = start_server(QAIO_AUDIT_FILE=str(tmp_path / "audit"))
    for _ in range(5):
        assert server.post("/v1/tasks/sentiment", {"text": "今天很开心"}).status_code == 200
    until(lambda: samples(server, "qaio_audit_lines_lost_total") == ["qaio_audit_lines_lost_total 5.0"])
    assert log.text.count("the audit log cannot be written") == 1


def test_the_abstain_label_is_counted_from_zero_on(
    start_server: StartServer, prompts_folder: Path, tmp_path: Path
) -> None:
    prompts = Path(shutil.copytree(prompts_folder, tmp_path / "prompts"))
    file = prompts / "sentiment" / "prompt.md"
    file.write_text(abstaining(file.read_text("utf-8")), "utf-8")
    told = samples(start_server(QAIO_PROMPTS=str(prompts)), "qaio_labels_total")
    for label in ("正面", "负面", "说不准"):
        assert f'qaio_labels_total{{label="{label}",task="sentiment"}} 0.0' in told
