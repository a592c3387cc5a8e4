"""What ends a worker, and what becomes of its requests: hangs, kills, stops, reloads, a lost master."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.conftest import (
    GUNICORN,
    Reply,
    Service,
    StartService,
    alive,
    assert_is_chat,
    free_port,
    until,
)

FAULTY = (*GUNICORN, "tests.support.faulty_app:app")
TEXT = "今天心情特别差，工作也不顺利"

Start = Callable[..., Service]


@pytest.fixture
def start_faulty(start_service: StartService, tmp_path: Path) -> Start:
    """Starts services whose steps take 20 ms and more, and do what the files of `tmp_path` say."""

    def start(**given: str) -> Service:
        settings = {"FAULT_FOLDER": str(tmp_path), "FAULT_STEP_S": "0.02"} | given
        return start_service(command=FAULTY, **settings)

    return start


class Crowd:
    """Clients that ask one after the other until told to stop, and note every outcome."""

    def __init__(self, service: Service, clients: int) -> None:
        self.service = service
        self.replies: list[Reply] = []
        self.lost: list[Exception] = []
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        while not self._ended.is_set():
            try:
                self.replies.append(self.service.chat(TEXT))
            except (OSError, http.client.HTTPException) as error:
                self.lost.append(error)
                time.sleep(0.02)

    def end(self) -> Counter[int]:
        self._ended.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a client hangs"
        return Counter(reply.status for reply in self.replies)


def test_a_step_without_memory_costs_its_requests_a_hang_or_a_dead_thread_the_worker(
    start_faulty: Start, tmp_path: Path
) -> None:
    """One service for all three, since each start takes seconds."""
    service = start_faulty(QAIO_STUCK_S="2")
    (worker,) = service.workers
    (tmp_path / "memory").touch()
    reply = service.chat(TEXT)
    assert (reply.status, reply.json["code"]) == (503, "out_of_memory")
    assert_is_chat(service.chat(TEXT))
    assert service.workers == [worker]

    (tmp_path / "hang").touch()
    began = time.monotonic()
    replies = service.chat_all([TEXT] * 6)
    assert time.monotonic() - began < 20
    assert {(reply.status, reply.json["code"]) for reply in replies} == {(503, "engine_stuck")}
    assert all(int(reply.headers["Retry-After"]) >= 1 for reply in replies)
    until(lambda: not alive(worker), "the worker ends", 10)
    until(lambda: service.log.count("ready: model") == 2, "another is ready")
    assert_is_chat(service.chat(TEXT))

    (worker,) = service.workers
    (tmp_path / "die").touch()
    assert service.chat(TEXT).status == 503
    until(lambda: not alive(worker), "the worker ends", 10)
    until(lambda: service.log.count("ready: model") == 3, "another is ready")
    assert_is_chat(service.chat(TEXT))
    assert service.process.poll() is None


def test_a_killed_worker_costs_only_its_own_requests_three_times_over(start_faulty: Start) -> None:
    service = start_faulty(QAIO_WORKERS="2")
    crowd = Crowd(service, 6)
    for count in range(1, 4):
        time.sleep(0.5)
        os.kill(service.workers[0], signal.SIGKILL)
        until(lambda count=count: service.log.count("ready: model") == 2 + count, "a new worker is ready")  # type: ignore[misc]
    statuses = crowd.end()
    # A worker has at most the six requests that there are; a connection may be lost before its request is sent.
    assert len(crowd.lost) <= 3 * 6
    # The other worker was there all the time: nobody had to be told that the new one still loads.
    assert set(statuses) <= {200, 503} and statuses[503] <= 0.1 * statuses[200] + 3
    assert statuses[200] > 20
    assert len(service.workers) == 2 and service.process.poll() is None


def test_a_stop_under_load_loses_no_admitted_request_and_refuses_the_rest(start_faulty: Start) -> None:
    service = start_faulty(QAIO_WORKERS="2", QAIO_SLOTS="4", QAIO_MAX_WAITING="8")
    crowd = Crowd(service, 20)
    time.sleep(1.5)
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(60) == 0
    statuses = crowd.end()
    codes = Counter(reply.json["code"] for reply in crowd.replies if reply.status != 200)
    assert set(codes) <= {"server_busy", "draining"} and codes["draining"] > 0
    for reply in crowd.replies:
        if reply.status == 503 and reply.json["code"] == "draining":
            assert reply.headers["Connection"] == "close" and int(reply.headers["Retry-After"]) >= 1
    assert statuses[200] > 0
    # After the last answer nobody listens: refused connections, and none that was taken and then dropped.
    assert {type(error) for error in crowd.lost} <= {ConnectionRefusedError}, Counter(map(repr, crowd.lost))


def test_while_it_drains_it_says_so_and_finishes_both_halves_of_a_chat(start_faulty: Start) -> None:
    service = start_faulty(FAULT_STEP_S="0.1")
    (worker,) = service.workers
    kept = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
    kept.request("GET", "/readyz")
    assert kept.getresponse().read()
    replies: list[Reply] = []
    thread = threading.Thread(target=lambda: replies.append(service.chat(TEXT)))
    thread.start()
    time.sleep(0.05)
    service.process.send_signal(signal.SIGTERM)
    until(lambda: service.answers("/readyz", 503), "a new connection is told", 5)
    ready = service.ask("GET", "/readyz")
    assert ready.json["status"] == "draining" and int(ready.headers["Retry-After"]) >= 1
    refused = service.chat(TEXT)
    assert (refused.status, refused.json["code"], refused.headers["Connection"]) == (503, "draining", "close")
    assert service.ask("GET", "/livez").status == 200
    kept.request("GET", "/readyz")
    assert kept.getresponse().status == 503
    kept.close()
    thread.join(60)
    assert_is_chat(replies[0])
    assert service.process.wait(30) == 0 and not alive(worker)


def test_what_is_left_when_the_grace_is_over_is_told_so(start_faulty: Start) -> None:
    service = start_faulty(QAIO_GRACE_S="1", FAULT_STEP_S="0.5")
    replies: list[Reply] = []
    threads = [threading.Thread(target=lambda: replies.append(service.chat(TEXT))) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    began = time.monotonic()
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(30) == 0
    assert time.monotonic() - began < 1 + 2 + 2 + 3
    for thread in threads:
        thread.join(30)
    assert [(reply.status, reply.json["code"]) for reply in replies] == [(503, "draining")] * 3
    assert "SIGKILL" not in service.log


def test_a_quick_stop_ends_what_runs_with_an_answer(start_faulty: Start) -> None:
    service = start_faulty(FAULT_STEP_S="0.5")
    replies: list[Reply] = []
    thread = threading.Thread(target=lambda: replies.append(service.chat(TEXT)))
    thread.start()
    time.sleep(0.5)
    began = time.monotonic()
    service.process.send_signal(signal.SIGINT)
    service.process.wait(30)
    assert time.monotonic() - began < 10
    thread.join(30)
    assert (replies[0].status, replies[0].json["code"]) == (503, "draining")
    assert "SIGKILL" not in service.log


def test_a_reload_finishes_what_the_old_worker_admitted(start_faulty: Start) -> None:
    service = start_faulty()
    (old,) = service.workers
    crowd = Crowd(service, 4)
    time.sleep(0.5)
    service.process.send_signal(signal.SIGHUP)
    until(lambda: service.log.count("ready: model") == 2, "the new worker is ready")
    until(lambda: not alive(old), "the old worker has ended", 30)
    time.sleep(0.5)
    statuses = crowd.end()
    assert crowd.lost == [] and set(statuses) == {200}
    assert_is_chat(service.chat(TEXT))
    assert service.process.poll() is None


@pytest.mark.parametrize("state", ["stuck", "draining"])
def test_workers_whose_master_was_killed_end_soon(start_faulty: Start, tmp_path: Path, state: str) -> None:
    service = start_faulty(QAIO_WORKERS="2", FAULT_STEP_S="0.5")
    workers = service.workers
    if state == "stuck":
        (tmp_path / "hang").touch()
    asked = [threading.Thread(target=service.answers, args=("/livez", 200), daemon=True)]
    asked += [threading.Thread(target=_ask_and_bear, args=(service,), daemon=True) for _ in range(6)]
    for thread in asked:
        thread.start()
    time.sleep(0.7)
    if state == "draining":
        service.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
    os.kill(service.process.pid, signal.SIGKILL)
    service.process.wait(10)
    until(lambda: not any(alive(pid) for pid in workers), "the workers end", 5 + 3)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", service.port)) != 0
    for thread in asked:
        thread.join(30)
        assert not thread.is_alive(), "a client hangs"


def _ask_and_bear(service: Service) -> None:
    with suppress(OSError, http.client.HTTPException):
        service.chat(TEXT)


def test_a_worker_that_cannot_start_again_does_not_take_the_others_along(
    start_service: StartService, tmp_path: Path
) -> None:
    """The prompts in force, of which the service keeps a copy, are broken while it runs, and a worker dies."""
    service = start_service(QAIO_WORKERS="2", QAIO_PROMPTS_KEPT=str(tmp_path / "kept"))
    (file,) = (tmp_path / "kept").glob("**/sentiment/prompt.md")
    whole = file.read_text(encoding="utf-8")
    file.chmod(0o644)
    file.write_text(whole.replace("kind: label", "kind: lable"), encoding="utf-8")
    os.kill(service.workers[0], signal.SIGKILL)
    until(lambda: "worker cannot start" in service.log, "the new worker says what is wrong", 30)
    assert "output.kind" in service.log
    for _ in range(3):
        assert_is_chat(service.chat(TEXT))
    assert service.process.poll() is None
    file.write_text(whole, encoding="utf-8")
    until(lambda: service.log.count("ready: model") == 3, "it starts once the file is mended", 30)


def test_workers_killed_while_they_load_do_not_stop_the_master(start_service: StartService) -> None:
    service = start_service(ready=False, QAIO_WORKERS="2")
    for count in range(1, 4):
        until(lambda count=count: len(service.workers) == 2 and service.log.count("Booting") > count, "they start")  # type: ignore[misc]
        os.kill(service.workers[0], signal.SIGKILL)
    until(lambda: service.log.count("ready: model") >= 2, "two have loaded")
    assert_is_chat(service.chat(TEXT))
    assert service.process.poll() is None


def test_a_port_in_use_is_said_and_ends_the_start(start_service: StartService) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        service = start_service(ready=False, QAIO_PORT=str(port))
        assert service.process.wait(30) != 0
    assert f"another program listens on 127.0.0.1 port {port}" in service.log
