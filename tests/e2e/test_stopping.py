"""The end of a server: what was accepted is answered, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

from tests.e2e.conftest import Reply, Service, StartService, alive, assert_is_chat, until
from tests.e2e.test_watching import metrics

ACCEPTED = 24
# Far less than the 125 s an idle stop could last if something were waited for; seconds, on a machine that is free.
AT_ONCE_S = 30.0


def test_a_stop_while_replies_are_generated_lets_them_finish(start_service: StartService, tmp_path: Path) -> None:
    """Started by the command, which serves from any folder and hands its process over to Gunicorn with its signals."""
    deadline = 20.0
    folder = tmp_path / "其他 文件夹"
    folder.mkdir()
    command = (sys.executable, "-m", "qwen_allinone", "serve")
    service = start_service(command=command, folder=folder, QAIO_DEADLINE_S=str(deadline))
    answered: list[tuple[float, Reply]] = []
    first = threading.Event()

    def ask(number: int) -> None:
        reply = service.chat(f"今天是第 {number} 天，我很开心，工作也顺利")
        answered.append((time.monotonic(), reply))
        first.set()

    threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(ACCEPTED)]
    for thread in threads:
        thread.start()
    assert first.wait(60)
    # One that the service has not let in yet when it is told to stop is refused, and rightly so.
    until(lambda: len(answered) + inside(service) >= ACCEPTED, "all are let in or answered")
    stopped = time.monotonic()
    service.process.send_signal(signal.SIGTERM)
    code = service.process.wait(deadline + 5 + 2)
    assert time.monotonic() - stopped <= deadline + 5 + 2
    assert code == 0
    for thread in threads:
        thread.join(10)
    assert len(answered) == ACCEPTED
    for _, reply in answered:
        assert_is_chat(reply)
    assert max(when for when, _ in answered) > stopped, "all was answered before the stop: nothing was tested"
    assert_nothing_listens(service.port)


def test_an_idle_server_stops_at_once(start_service: StartService) -> None:
    service = start_service()
    workers = service.workers
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(AT_ONCE_S) == 0
    assert not any(alive(pid) for pid in workers)
    assert_nothing_listens(service.port)


def test_workers_whose_master_was_killed_end_and_free_the_port(start_service: StartService) -> None:
    service = start_service()
    workers = service.workers
    os.kill(service.process.pid, signal.SIGKILL)
    service.process.wait(10)
    until(lambda: not any(alive(pid) for pid in workers), "the workers end", AT_ONCE_S)
    assert_nothing_listens(service.port)


def inside(service: Service) -> int:
    """Requests that are computed or wait for a slot."""
    found = metrics(service)
    return int(found["qaio_num_requests_running"] + found["qaio_num_requests_waiting"])


def assert_nothing_listens(port: int) -> None:
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
