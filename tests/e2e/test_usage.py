"""What was used is written by real workers: while they run, at their end, and but for seconds before a kill."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.e2e.conftest import Service, StartService, until


def kept(file: Path) -> int:
    """Chats that the file knows of."""
    if not file.exists():
        return 0
    with closing(sqlite3.connect(file, timeout=20.0)) as db:
        try:
            rows = db.execute("SELECT times FROM usage WHERE name = 'POST /chat'").fetchall()
        except sqlite3.OperationalError:  # no table yet
            return 0
    return sum(times for (times,) in rows)


def ask(service: Service, times: int) -> None:
    for _ in range(times):
        assert service.chat("今天心情特别差").status == 200


def test_two_workers_write_what_they_have_at_their_end(start_service: StartService, tmp_path: Path) -> None:
    file = tmp_path / "state" / "sessions.db"
    service = start_service(QAIO_WORKERS="2", QAIO_SESSIONS_FILE=str(file), QAIO_FIT="off")
    ask(service, 5)
    service.process.send_signal(signal.SIGTERM)
    service.process.wait(60)
    assert kept(file) == 5


def test_a_kill_takes_no_more_than_what_was_not_yet_written(start_service: StartService, tmp_path: Path) -> None:
    file = tmp_path / "state" / "sessions.db"
    service = start_service(QAIO_SESSIONS_FILE=str(file), QAIO_FIT="off")
    ask(service, 3)
    until(lambda: kept(file) == 3, "the worker has written")
    (worker,) = service.workers
    ask(service, 1)
    os.kill(worker, signal.SIGKILL)
    until(lambda: service.workers not in ([], [worker]) and service.answers("/readyz", 200), "another worker")
    ask(service, 2)
    answer: Any = service.ask("GET", "/v1/usage").json
    assert answer["data"][0]["routes"]["POST /chat"]["requests"] in (5, 6), "the one before the kill may be lost"
