"""Memories added over HTTP while processes are killed with -9: none that was answered is lost, and none is doubled.

`MEMORY_ADDITIONS=1000` adds a thousand; without it fewer, which takes a tenth of the time.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from tests.e2e.conftest import Service, StartService, until

ADDITIONS = int(os.environ.get("MEMORY_ADDITIONS", "120"))
USERS = 10
# Of all, so many are answered when something is killed: two workers, one after the other, then everything at once.
KILLS = (0.2, 0.4, 0.6)


class Adding:
    """Clients that add statements one after the other, and add again what was not answered."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.answered: dict[int, str] = {}
        self.unanswered = 0
        self._back = threading.Event()
        self._back.set()

    def pause(self) -> None:
        """Until `go_on` nobody asks: there is nobody to be asked."""
        self._back.clear()

    def go_on(self, service: Service) -> None:
        self.service = service
        self._back.set()

    def add(self, number: int) -> None:
        body = json.dumps({"text": f"用户数到了{number}"}).encode()
        while number not in self.answered:
            assert self._back.wait(300), "the service never came back"
            try:
                path = f"/v1/memory/u-{number % USERS}"
                reply = self.service.ask("POST", path, body, Content_Type="application/json")
            except (OSError, http.client.HTTPException):
                self.unanswered += 1
                time.sleep(0.05)
                continue
            if reply.status == 200:
                self.answered[number] = reply.json["id"]


def test_kill_9_amid_additions_loses_none_that_was_answered_and_doubles_none(
    start_service: StartService, tmp_path: Path
) -> None:
    given = {"QAIO_WORKERS": "2", "QAIO_MEMORY": "1", "QAIO_SESSIONS_FILE": str(tmp_path / "sessions.db")}

    def start() -> Service:
        service = start_service(ready=False, **given)
        until(lambda: service.answers("/livez", 200) and len(service.workers) == 2, "both workers are there")
        return service

    adding = Adding(start())
    with ThreadPoolExecutor(4) as pool:
        tasks = [pool.submit(adding.add, number) for number in range(ADDITIONS)]
        for place, share in enumerate(KILLS):
            until(lambda share=share: len(adding.answered) >= share * ADDITIONS, "some are answered", 300)  # type: ignore[misc]
            if place < 2:
                before = adding.service.workers
                os.kill(before[0], signal.SIGKILL)
                until(lambda before=before: set(adding.service.workers) - set(before), "another worker is there")  # type: ignore[misc]
            else:
                adding.pause()
                with suppress(ProcessLookupError):
                    os.killpg(adding.service.process.pid, signal.SIGKILL)
                adding.go_on(start())
        for task in tasks:
            task.result(300)
    assert sorted(adding.answered) == list(range(ADDITIONS))
    kept = [memory for user in range(USERS) for memory in listed(adding.service, f"u-{user}")]
    texts = Counter(text for _, text in kept)
    assert texts == Counter(f"用户数到了{number}" for number in range(ADDITIONS)), "each once"
    assert set(kept) == {(id, f"用户数到了{number}") for number, id in adding.answered.items()}


def listed(service: Service, user: str) -> list[tuple[str, str]]:
    reply = service.ask("GET", f"/v1/memory/{user}")
    assert reply.status == 200, reply.data
    return [(memory["id"], memory["text"]) for memory in reply.json["memories"]]
