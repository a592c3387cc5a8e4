"""Alerts of a real service, to a real receiver that is away for a while, through kill -9 of master and workers.

ALERT_EVENTS=1000 has a thousand texts and a receiver that is away for a minute; without it there are fewer.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e.conftest import Service, StartService, until
from tests.support.receiver import Receiver, write_alerts

EVENTS = int(os.environ.get("ALERT_EVENTS", "60"))
AWAY_S = 60.0 if EVENTS >= 1000 else 3.0
PATIENCE_S = float(os.environ.get("ALERT_PATIENCE_S", 240.0 + EVENTS))
pytestmark = pytest.mark.timeout(10 * PATIENCE_S)
RULE = "  - {name: orders, when: {pattern: '第 [0-9]{1,5} 单'}, show_text: true, channels: [ops]}\n"


class Serving:
    """A service that is killed and started again over the same files, and clients that do not give up."""

    def __init__(self, start: StartService, home: Path, alerts: Path) -> None:
        self._start, self._lock = start, threading.Lock()
        self._settings = {
            "QAIO_FIT": "off",
            "QAIO_SESSIONS_FILE": str(home / "sessions.db"),
            "QAIO_BATCHES_FILE": str(home / "batches.db"),
            "QAIO_ALERTS": str(alerts),
            "QAIO_ALERTS_OUTBOX": str(home / "alerts.db"),
            "QAIO_ALERTS_NETWORKS": "127.0.0.0/8",
        }
        self.service = self._started()

    def kill(self) -> None:
        """kill -9 of the master and its worker at the same time, and another in their place."""
        os.killpg(self.service.process.pid, signal.SIGKILL)
        self.service.process.wait()
        self.service = self._started()

    def ask(self, number: int) -> None:
        """Ask until there is an answer; what is asked again carries the same key."""
        body = json.dumps({"text": f"第 {number} 单很满意"}, ensure_ascii=False).encode()
        ends = time.monotonic() + PATIENCE_S
        while time.monotonic() < ends:
            with suppress(OSError, http.client.HTTPException):
                headers = {"Content_Type": "application/json", "Idempotency_Key": f"order-{number}"}
                if self.service.ask("POST", "/v1/tasks/sentiment", body, **headers).status == 200:
                    return
            time.sleep(0.2)
        raise AssertionError(f"{number} has no answer")

    def _started(self) -> Service:
        service = self._start(ready=False, **self._settings)

        def ready() -> bool:
            assert service.process.poll() is None, service.log
            return bool(re.search("ready: model", service.log)) and service.answers("/readyz", 200)

        until(ready, "the service is ready", PATIENCE_S)
        return service


def test_no_alert_is_lost_and_none_comes_twice_unmarked(start_service: StartService, tmp_path: Path) -> None:
    receiver = Receiver()
    serving = Serving(start_service, tmp_path, write_alerts(tmp_path / "alerts", receiver.url, RULE))
    try:
        receiver.down()
        back = threading.Timer(AWAY_S, receiver.up)
        back.start()
        with ThreadPoolExecutor(4) as clients:
            answered = [clients.submit(serving.ask, number) for number in range(EVENTS)]
            until(lambda: sum(map(_is_done, answered)) >= EVENTS // 3, "a third is answered", PATIENCE_S)
            serving.kill()  # while the receiver is away or was until just now, and clients ask
            back.join()
            until(lambda: len(receiver.taken) >= EVENTS // 4, "some are sent", PATIENCE_S)
            serving.kill()  # while messages are being sent
            for answer in answered:
                answer.result()
        expected = {f"第 {number} 单很满意" for number in range(EVENTS)}
        until(lambda: {told.body["data"]["text"] for told in receiver.taken} >= expected, "all is told", PATIENCE_S)
    finally:
        receiver.down()
    ids = {told.body["data"]["text"]: set[str]() for told in receiver.taken}
    for told in receiver.taken:
        ids[told.body["data"]["text"]].add(told.id)
    assert {text: found for text, found in ids.items() if len(found) > 1} == {}, "doubles that no receiver could tell"
    assert all(told.signed for told in receiver.taken)
    doubles = sum(Counter(told.id for told in receiver.taken).values()) - len(expected)
    print(f"{EVENTS} events, receiver away for {AWAY_S:g} s, 2 kills: lost 0, unmarked doubles 0, marked {doubles}")


def _is_done(answer: object) -> bool:
    return bool(answer.done())  # type: ignore[attr-defined]
