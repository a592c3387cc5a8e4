"""The client's own time limit, what a full engine refuses early, and whose socket is watched."""

from __future__ import annotations

import select
import socket
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from werkzeug.test import TestResponse

from qwen_allinone.access import keys
from qwen_allinone.engine import Status
from qwen_allinone.http.disconnects import Disconnects
from tests.integration.conftest import Gate, Later, Server, StartServer, until
from tests.integration.test_http_errors import ROUTES, problem

TEXT = {"text": "今天很开心"}


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    "value", ["0", "-1", "+5", "1.5", "1e3", "", " ", "abc", "0x10", "٣", "5, 6", "9" * 40, "true", "0" * 8000 + "1"]
)
def test_a_limit_that_is_no_positive_integer_is_a_400(server: Server, path: str, value: str) -> None:
    answer = server.client.post(path, json=TEXT, headers={"X-Timeout-Ms": value})
    assert answer.status_code == 400
    assert problem(answer, path)["code"] == "invalid_input"
    assert "X-Timeout-Ms" in answer.get_data(as_text=True)


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("value", ["60000", "0060000", "9999999999"])
def test_a_limit_that_leaves_time_changes_nothing(server: Server, path: str, value: str) -> None:
    assert server.client.post(path, json=TEXT, headers={"X-Timeout-Ms": value}).status_code == 200


@pytest.mark.parametrize("path", ROUTES)
def test_a_limit_ends_the_request(start_server: StartServer, path: str) -> None:
    server = start_server()
    gate = Gate(server)
    gate.shut()
    began = time.monotonic()
    answer = server.client.post(path, json=TEXT, headers={"X-Timeout-Ms": "100"})
    assert (answer.status_code, problem(answer, path)["code"]) == (504, "deadline_exceeded")
    assert time.monotonic() - began < 30
    gate.open()


def test_a_limit_may_only_shorten_the_servers_own(start_server: StartServer) -> None:
    server = start_server(QAIO_DEADLINE_S="0.3")
    gate = Gate(server)
    gate.shut()
    answer = server.client.post("/chat", json=TEXT, headers={"X-Timeout-Ms": "3600000"})
    assert answer.status_code == 504
    gate.open()


def test_the_limit_stands_in_the_documentation_of_both_routes(server: Server) -> None:
    paths = server.client.get("/openapi.json").get_json()["paths"]
    for path in ROUTES:
        assert "X-Timeout-Ms" in [p["name"] for p in paths[path]["post"]["parameters"]]
    assert "parameters" not in paths["/v1/tasks"]["get"]


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("value", ["10", "-1", "1.5", "", "high", "٣", "00"])
def test_a_priority_that_is_none_is_a_400(server: Server, path: str, value: str) -> None:
    answer = server.client.post(path, json=TEXT, headers={"X-Priority": value})
    assert (answer.status_code, problem(answer, path)["code"]) == (400, "invalid_input")
    assert "X-Priority" in answer.get_data(as_text=True)


class Keys:
    """A server that asks for keys, of which alice's may raise the priority of her requests."""

    def __init__(self, start_server: StartServer, folder: Path) -> None:
        file = folder / "keys"
        self._secrets = {name: keys.add(file, name) for name in ("alice", "bob")}
        self.server = start_server(
            QAIO_API_KEYS_FILE=str(file), QAIO_PRIORITY_KEYS="alice", QAIO_SLOTS="1", QAIO_CACHE_MB="0"
        )

    def ask(self, name: str, priority: str, text: str = "今天很开心") -> TestResponse:
        headers = {"X-Priority": priority, "Authorization": f"Bearer {self._secrets[name]}"}
        return self.server.client.post("/v1/tasks/sentiment", json={"text": text}, headers=headers)


def test_only_a_key_with_the_right_may_raise_its_priority(start_server: StartServer, tmp_path: Path) -> None:
    kept = Keys(start_server, tmp_path)
    refused = kept.ask("bob", "1")
    assert (refused.status_code, problem(refused, "/v1")["code"]) == (403, "priority_forbidden")
    assert kept.ask("bob", "0").status_code == kept.ask("alice", "9").status_code == 200
    assert kept.server.client.post("/chat", json=TEXT, headers={"X-Priority": "1"}).status_code == 401
    assert kept.server.client.get("/livez", headers={"X-Priority": "1"}).status_code == 200


def test_without_keys_nobody_may(server: Server) -> None:
    assert server.client.post("/chat", json=TEXT, headers={"X-Priority": "1"}).status_code == 403


def test_a_raised_request_comes_before_older_ones_of_others(start_server: StartServer, tmp_path: Path) -> None:
    kept = Keys(start_server, tmp_path)
    engine, gate, ended = kept.server.service.engine, Gate(kept.server), list[str]()

    def ask(name: str, priority: str, text: str) -> TestResponse:
        answer = kept.ask(name, priority, text)
        ended.append(text)
        return answer

    gate.shut()
    asked = [Later(partial(ask, "bob", "0", "running"))]
    assert gate.entered.wait(30)
    for name, priority, text in (("bob", "0", "older"), ("alice", "9", "raised")):
        before = engine.waiting
        asked.append(Later(partial(ask, name, priority, text)))
        until(lambda before=before: engine.waiting > before)  # type: ignore[misc]
    gate.open()
    assert [later.answer().status_code for later in asked] == [200, 200, 200]
    assert ended.index("raised") < ended.index("older")


def test_a_full_engine_refuses_before_it_looks_at_the_body_and_lists_tasks_all_the_same(
    start_server: StartServer,
) -> None:
    server = start_server(QAIO_SLOTS="1", QAIO_MAX_WAITING="0")
    gate = Gate(server)
    gate.shut()
    busy = Later(lambda: server.post("/chat", TEXT))
    until(lambda: server.service.engine.admitted == 1)
    for path in ROUTES:
        assert problem(server.post(path, b"[" * 100_000), path)["code"] == "server_busy"
    assert server.client.get("/v1/tasks").status_code == 200
    assert server.post("/v1/tasks/none", TEXT).status_code == 404
    gate.open()
    assert busy.answer().status_code == 200
    until(lambda: server.service.engine.admitted == 0)
    assert server.post("/chat", b"[" * 100_000).status_code == 400


def test_a_chat_is_not_refused_between_its_halves_however_many_wait(start_server: StartServer) -> None:
    server = start_server(QAIO_SLOTS="1", QAIO_MAX_WAITING="3")
    for _ in range(3):
        asked = [Later(lambda: server.post("/chat", TEXT)) for _ in range(12)]
        answers = [later.answer() for later in asked]
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) <= {200, 503} and statuses.count(200) >= 4
        for answer in answers:
            assert answer.status_code == 200 or answer.get_json()["code"] == "server_busy"
    assert server.service.engine.admitted == 0


def test_a_request_that_the_service_refuses_gives_its_place_back(start_server: StartServer) -> None:
    server = start_server(QAIO_SLOTS="1", QAIO_MAX_WAITING="0")
    for _ in range(3):
        assert server.post("/chat", {"text": "好" * 5000}).status_code == 400
        assert server.post("/chat", {"text": " "}).status_code == 400
    assert server.service.engine.admitted == 0
    assert server.post("/chat", TEXT).status_code == 200


def test_a_draining_server_says_so_everywhere_but_in_livez(start_server: StartServer) -> None:
    server = start_server()
    server.service.engine.drain()
    assert server.service.engine.status is Status.DRAINING
    for path in ROUTES:
        answer = server.post(path, TEXT)
        assert (answer.status_code, problem(answer, path)["code"]) == (503, "draining")
        assert int(answer.headers["Retry-After"]) >= 1
    for path in ("/readyz", "/health"):
        answer = server.client.get(path)
        assert (answer.status_code, answer.get_json()) == (503, {"status": "draining"})
    assert server.client.get("/livez").status_code == 200


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="clients are watched on Linux only")
@pytest.mark.parametrize("end", ["closes", "closes with bytes unread", "shuts down its sending side"])
def test_a_client_that_goes_while_it_waits_frees_its_place(start_server: StartServer, end: str) -> None:
    server = start_server(QAIO_SLOTS="1", QAIO_MAX_WAITING="0")
    gate = Gate(server)
    gate.shut()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        environment = {"gunicorn.socket": ours}
        later = Later(lambda: server.client.post("/chat", json=TEXT, environ_overrides=environment))
        assert gate.entered.wait(30)
        if end == "shuts down its sending side":
            theirs.shutdown(socket.SHUT_WR)
        else:
            if end == "closes with bytes unread":
                theirs.sendall(b"GET /livez HTTP/1.1\r\n")
            theirs.close()
        time.sleep(0.2)
        steps = gate.steps
        gate.open()
        answer = later.answer()
    assert (answer.status_code, answer.get_json()["code"]) == (503, "cancelled")
    assert gate.steps - steps <= 2
    assert server.service.engine.admitted == 0
    assert server.post("/chat", TEXT).status_code == 200


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="clients are watched on Linux only")
def test_watching_ends_with_the_request_although_the_number_of_its_socket_is_used_again(server: Server) -> None:
    """A thousand short watches on four connections, some of which close: only their own request hears of it."""
    disconnects = Disconnects()
    wrong: list[int] = []

    def client(number: int) -> None:
        for turn in range(100):
            ours, theirs = socket.socketpair()
            left = threading.Event()
            with (
                server.app.test_request_context(environ_overrides={"gunicorn.socket": ours}),
                disconnects.watch(left.set),
            ):
                if turn % 3 == 0:
                    theirs.close()
                    if not left.wait(10):
                        wrong.append(turn)
                elif left.is_set():
                    wrong.append(turn)
            ours.close()
            theirs.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == [] and disconnects._watched == {}
