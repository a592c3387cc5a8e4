"""Alerts of two processes over one outbox, both killed with kill -9 again and again; the receiver is away for a while.

ALERT_EVENTS=1000 has a thousand texts and a receiver that is away for a minute; without it there are fewer. The same
through a whole service is in tests/e2e/test_alerts.py.
"""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.receiver import Receiver, write_alerts

PROJECT = Path(__file__).resolve().parents[3]
EVENTS = int(os.environ.get("ALERT_EVENTS", "100"))
AWAY_S = 60.0 if EVENTS >= 1000 else 2.0
PATIENCE_S = 200.0 + EVENTS
RULE = "  - {name: orders, when: {pattern: '第 [0-9]{1,5} 单'}, show_text: true, channels: [ops]}\n"
pytestmark = pytest.mark.timeout(300 + 3 * EVENTS)


class Worker:
    """One process, which is followed by another when it is killed."""

    def __init__(self, file: Path, home: Path) -> None:
        self._command = [sys.executable, "-m", "tests.support.alerting_process", str(file), str(home)]
        self.process = self._begin()
        self.port = self._port()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()
        self.process = self._begin()
        self.port = self._port()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()

    def tell(self, number: int) -> None:
        """Until it answers: what was not answered is asked again, and is the same text."""
        ends = time.monotonic() + PATIENCE_S
        while time.monotonic() < ends:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
            with suppress(OSError, http.client.HTTPException):
                connection.request("POST", f"/{number}")
                if connection.getresponse().status == 204:
                    return
            connection.close()
            time.sleep(0.05)
        raise AssertionError(f"{number} is not answered")

    def _begin(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command, cwd=PROJECT, stdout=subprocess.PIPE)

    def _port(self) -> int:
        assert self.process.stdout
        return int(self.process.stdout.readline())


def until(holds: Callable[[], bool], what: str) -> None:
    ends = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < ends, what
        time.sleep(0.05)


def test_nothing_is_lost_and_nothing_comes_twice_unmarked(tmp_path: Path) -> None:
    receiver = Receiver()
    receiver.down()
    file = write_alerts(tmp_path / "alerts", receiver.url, RULE)
    workers = [Worker(file, tmp_path), Worker(file, tmp_path)]
    back = threading.Timer(AWAY_S, receiver.up)
    back.start()
    told = 0

    def tell(number: int) -> None:
        nonlocal told
        workers[number % 2].tell(number)
        told += 1

    try:
        with ThreadPoolExecutor(4) as clients:
            answered = [clients.submit(tell, number) for number in range(EVENTS)]
            until(lambda: told >= EVENTS // 3, "a third is told")
            for worker in workers:  # while the receiver is away or was until just now, and texts come
                worker.kill()
            back.join()
            until(lambda: len(receiver.taken) >= EVENTS // 4, "some are sent")
            for worker in workers:  # while messages are being sent
                worker.kill()
            for answer in answered:
                answer.result()
        expected = {f"第 {number} 单" for number in range(EVENTS)}
        until(lambda: {one.body["data"]["text"] for one in list(receiver.taken)} == expected, "all are sent")
    finally:
        for worker in workers:
            worker.end()
        back.cancel()
        receiver.down()
    ids = defaultdict(set)
    for one in receiver.taken:
        ids[one.body["data"]["text"]].add(one.id)
    assert [text for text, found in ids.items() if len(found) != 1] == [], "doubles that no receiver could tell"
    assert all(one.signed for one in receiver.taken)
    doubles = sum(Counter(one.id for one in receiver.taken).values()) - EVENTS
    print(f"{EVENTS} events, receiver away for {AWAY_S:g} s, 4 kills: lost 0, unmarked doubles 0, marked {doubles}")
