"""Full, late, broken or not ready: each caller gets an answer that says so, and the server goes on."""

from __future__ import annotations

import logging
import shutil
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from qwen_allinone import bootstrap
from qwen_allinone.engine import Engine
from qwen_allinone.model import checkpoint
from tests.integration.conftest import Gate, Later, Server, StartServer, until
from tests.integration.test_http_errors import ROUTES, problem

SECRET = "Traceback in /srv/secret/keys.py, password=hunter2"


@pytest.mark.parametrize("path", ROUTES)
def test_an_unforeseen_error_is_a_500_that_tells_nothing_and_a_log_line_that_tells_all(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    server = start_server()

    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError(SECRET)

    with monkeypatch.context() as planted:
        planted.setattr(server.service, "chat", fail)
        planted.setattr(server.service, "run", fail)
        answer = server.post(path, {"text": "今天很开心"})
    assert answer.status_code == 500
    assert problem(answer, path)["code"] == "internal_error"
    assert_tells_nothing(answer.get_data(as_text=True), str(answer.headers))
    assert SECRET in caplog.text and "Traceback" in caplog.text
    assert server.post(path, {"text": "今天很开心"}).status_code == 200


@pytest.mark.parametrize("path", ROUTES)
def test_a_step_that_fails_fails_its_request_and_not_the_next(
    start_server: StartServer, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    server = start_server()
    model: Any = server.service.engine.model
    forward = model.forward

    def fail_once(*_: Any) -> Any:
        model.forward = forward
        raise RuntimeError(SECRET)

    model.forward = fail_once
    answer = server.post(path, {"text": "今天很开心"})
    assert answer.status_code == 500
    assert problem(answer, path)["code"] == "engine_failed"
    assert_tells_nothing(answer.get_data(as_text=True), str(answer.headers))
    until(lambda: SECRET in caplog.text)  # the engine answers first and writes then
    assert server.post(path, {"text": "今天很开心"}).status_code == 200
    assert server.client.get("/readyz").status_code == 200


NO_MEMORY = [
    MemoryError(SECRET),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried to allocate"
    ),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8589934592 bytes."),
]


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("error", NO_MEMORY, ids=["python", "linux", "others"])
def test_a_step_without_memory_is_a_503_and_the_next_request_a_200(
    start_server: StartServer, path: str, error: Exception
) -> None:
    server = start_server()
    model: Any = server.service.engine.model
    forward = model.forward

    def fail_once(*_: Any) -> Any:
        model.forward = forward
        raise error

    model.forward = fail_once
    answer = server.post(path, {"text": "今天很开心"})
    assert answer.status_code == 503
    assert problem(answer, path)["code"] == "out_of_memory"
    assert int(answer.headers["Retry-After"]) >= 1
    assert_tells_nothing(answer.get_data(as_text=True), str(answer.headers))
    assert server.post(path, {"text": "今天很开心"}).status_code == 200
    assert server.service.engine.admitted == server.service.engine.running == 0


def assert_tells_nothing(*texts: str) -> None:
    for text in texts:
        for word in ("Traceback", "secret", "hunter2", "RuntimeError", "MemoryError", ".py", "File "):
            assert word not in text


def test_an_engine_that_keeps_failing_is_rebuilt_while_the_process_stays(
    start_server: StartServer, caplog: pytest.LogCaptureFixture
) -> None:
    server = start_server()
    model: Any = server.service.engine.model

    def fail(*_: Any) -> Any:
        raise RuntimeError(SECRET)

    model.forward = fail
    statuses = [server.post("/v1/tasks/sentiment", {"text": "今天很开心"}).status_code for _ in range(3)]
    assert statuses == [500, 500, 500]
    until(lambda: server.service.engine.model not in (model, None))
    until(lambda: server.client.get("/readyz").status_code == 200)
    assert "restarting" in caplog.text
    assert server.post("/chat", {"text": "今天很开心"}).status_code == 200


@pytest.mark.parametrize("path", ROUTES)
def test_a_full_server_refuses_at_once_and_says_when_to_come_again(start_server: StartServer, path: str) -> None:
    server = start_server(QAIO_SLOTS="1", QAIO_MAX_WAITING="1", QAIO_CACHE_MB="0")
    gate = Gate(server)
    gate.shut()
    admitted = []
    for count in (1, 2):  # one computes, one waits
        admitted.append(Later(lambda: server.post("/v1/tasks/sentiment", {"text": "今天很开心"})))
        until(lambda count=count: server.service.engine.running + server.service.engine.waiting == count)  # type: ignore[misc]
    refused = server.post(path, {"text": "今天很开心"})
    assert refused.status_code == 503
    assert problem(refused, path)["code"] == "server_busy"
    assert int(refused.headers["Retry-After"]) >= 1
    assert server.client.get("/livez").status_code == 200
    assert server.client.get("/readyz").status_code == 200
    gate.open()
    assert [later.answer().status_code for later in admitted] == [200, 200]
    assert server.post(path, {"text": "今天很开心"}).status_code == 200


def test_exactly_as_many_as_fit_are_served_when_more_come_at_once(start_server: StartServer) -> None:
    server = start_server(QAIO_SLOTS="2", QAIO_MAX_WAITING="2")
    gate = Gate(server)
    gate.shut()
    asked = [Later(lambda: server.post("/v1/tasks/sentiment", {"text": "今天很开心"})) for _ in range(4 + 8)]
    until(lambda: sum(bool(later._answers) for later in asked) == 8)
    gate.open()
    assert sorted(later.answer().status_code for later in asked) == [200] * 4 + [503] * 8


@pytest.mark.parametrize("path", ROUTES)
def test_a_request_that_takes_too_long_is_a_504(start_server: StartServer, path: str) -> None:
    server = start_server(QAIO_DEADLINE_S="0.5")
    gate = Gate(server)
    gate.shut()
    late = Later(lambda: server.post(path, {"text": "今天很开心"}))
    assert gate.entered.wait(30)
    answer = late.answer()  # although the step still hangs
    assert answer.status_code == 504
    assert problem(answer, path)["code"] == "deadline_exceeded"
    gate.open()
    until(lambda: server.service.engine.running == 0)
    assert server.post("/v1/tasks/sentiment", {"text": "今天很开心"}).status_code == 200


def test_a_request_that_waits_past_its_deadline_is_never_computed(start_server: StartServer) -> None:
    server = start_server(QAIO_SLOTS="1", QAIO_DEADLINE_S="0.5")
    gate = Gate(server)
    gate.shut()
    first = Later(lambda: server.post("/v1/tasks/sentiment", {"text": "今天很开心"}))
    assert gate.entered.wait(30)
    second = Later(lambda: server.post("/v1/tasks/sentiment", {"text": "今天很难过"}))
    assert (first.answer().status_code, second.answer().status_code) == (504, 504)
    gate.open()
    until(lambda: server.service.engine.running + server.service.engine.waiting == 0)
    assert gate.steps == 1


def assert_not_ready(server: Server) -> None:
    for path in ROUTES:
        answer = server.post(path, {"text": "今天很开心"})
        assert answer.status_code == 503
        assert problem(answer, path)["code"] == "not_ready"
        assert int(answer.headers["Retry-After"]) >= 1
        assert server.post(path, b"[]").status_code == 400
    assert server.client.get("/livez").get_json() == {"status": "ok"}
    assert server.client.get("/v1/tasks").status_code == 200
    health = server.client.get("/health")
    assert (health.status_code, list(health.get_json())) == (503, ["status"])
    assert int(health.headers["Retry-After"]) >= 1


def test_a_model_that_cannot_be_loaded_leaves_a_server_that_says_why(
    start_server: StartServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = start_server(ready=False, QAIO_MODEL=str(tmp_path / "nothing"))
    server.service.engine.wait_until_settled(60)
    assert_not_ready(server)
    ready = server.client.get("/readyz")
    assert (ready.status_code, ready.get_json()["status"]) == (503, "failed")
    assert str(tmp_path / "nothing") in ready.get_json()["problem"]
    assert "Three ways out" in ready.get_json()["problem"]
    assert ready.get_json()["problem"] in caplog.text
    assert "nothing" not in server.client.get("/health").get_data(as_text=True)
    assert "nothing" not in server.post("/chat", {"text": "a"}).get_data(as_text=True)


def test_a_model_that_is_mended_is_loaded_without_a_restart(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch, demo_checkpoint: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(bootstrap, "Engine", partial(Engine, retry_load_s=0.1))
    server = start_server(ready=False, QAIO_MODEL=str(tmp_path / "model"))
    server.service.engine.wait_until_settled(60)
    assert server.client.get("/readyz").status_code == 503
    shutil.copytree(demo_checkpoint, tmp_path / "half")
    (tmp_path / "half").rename(tmp_path / "model")
    until(lambda: server.client.get("/readyz").status_code == 200)
    assert "problem" not in server.client.get("/readyz").get_json()
    assert server.post("/chat", {"text": "今天很开心"}).status_code == 200


def test_while_the_model_loads_the_server_says_so(start_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    load = checkpoint.load

    def load_later(*args: Any) -> Any:
        assert go_on.wait(60)
        return load(*args)

    monkeypatch.setattr(checkpoint, "load", load_later)
    server = start_server(ready=False)
    assert_not_ready(server)
    assert server.client.get("/readyz").get_json() == {"status": "loading"}
    go_on.set()
    until(lambda: server.client.get("/readyz").status_code == 200)
    assert server.post("/chat", {"text": "今天很开心"}).status_code == 200


def test_a_stopped_engine_refuses_and_is_not_ready(start_server: StartServer) -> None:
    server = start_server()
    server.service.engine.stop()
    assert_not_ready(server)
    assert server.client.get("/readyz").get_json()["status"] == "stopped"


def test_a_text_never_reaches_the_log(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server.post("/chat", {"text": "身份证号 110101199003071234 \x1b[31m红"})
    server.post("/chat", b'{"text": "110101199003071234')
    assert "110101199003071234" not in caplog.text and "\x1b" not in caplog.text
