"""Batches before real workers, asked by OpenAI's official client: worked off, cancelled, and through kill -9."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.e2e.conftest import Service, StartService, services, until
from tests.support.openai_client import client_at

pytestmark = pytest.mark.timeout(300)  # workers are killed and start again, on machines with much else to do
TASK: Any = "/v1/tasks/sentiment"
OVER = ("completed", "failed", "expired", "cancelled")
PATIENCE_S = 240.0


def settings(home: Path) -> dict[str, str]:
    """Nothing is remembered: each line takes the time that it takes."""
    return {
        "QAIO_WORKERS": "2",
        "QAIO_FIT": "off",
        "QAIO_CACHE_MB": "0",
        "QAIO_BATCHES_FILE": str(home / "state" / "batches.db"),
    }


@pytest.fixture(scope="module")
def served(demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    home = tmp_path_factory.mktemp("batches")
    with services(home) as start:
        yield started(start, home)


def started(start: StartService, home: Path) -> Service:
    """With the batches that are kept in `home`; a busy machine may take its time."""
    service = start(ready=False, **settings(home))

    def ready() -> bool:
        assert service.process.poll() is None, service.log
        return len(re.findall("ready: model", service.log)) == 2

    until(ready, "both workers are ready", PATIENCE_S)
    return service


def begin(asking: openai.OpenAI, count: int) -> Any:
    lines = [
        {"custom_id": f"row-{n}", "method": "POST", "url": TASK, "body": {"text": f"第 {n} 个房间很干净，早餐也好"}}
        for n in range(count)
    ]
    content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
    file = asking.files.create(file=("rows.jsonl", io.BytesIO(content)), purpose="batch")
    return asking.batches.create(input_file_id=file.id, endpoint=TASK, completion_window="24h")


def seen(asking: openai.OpenAI, id: str) -> Any:
    """The batch as it stands; None while nobody answers."""
    try:
        return asking.batches.retrieve(id)
    except (openai.APIConnectionError, openai.InternalServerError):
        return None


def reached(asking: openai.OpenAI, id: str, completed: int) -> Any:
    """The batch, once so many of its lines are answered."""
    ends = time.monotonic() + PATIENCE_S
    while (batch := seen(asking, id)) is None or (
        batch.request_counts.completed < completed and batch.status not in OVER
    ):
        assert time.monotonic() < ends, batch
        time.sleep(0.02)
    return batch


def ended(asking: openai.OpenAI, id: str) -> Any:
    ends = time.monotonic() + PATIENCE_S
    while (batch := seen(asking, id)) is None or batch.status not in OVER:
        assert time.monotonic() < ends, batch
        time.sleep(0.1)
    return batch


def assert_all_are_answered_once(asking: openai.OpenAI, batch: Any, count: int) -> None:
    assert (batch.status, batch.error_file_id) == ("completed", None)
    assert (batch.request_counts.total, batch.request_counts.completed) == (count, count)
    told = [json.loads(line) for line in asking.files.content(batch.output_file_id).text.splitlines()]
    assert [one["custom_id"] for one in told] == [f"row-{n}" for n in range(count)]
    assert all(one["response"]["body"]["label"] in ("正面", "负面") for one in told)


def test_both_workers_work_a_batch_off(served: Service) -> None:
    with client_at(served.port) as asking:
        assert_all_are_answered_once(asking, ended(asking, begin(asking, 60).id), 60)


def test_a_batch_that_is_cancelled_ends_and_every_line_is_in_one_of_its_files(served: Service) -> None:
    with client_at(served.port) as asking:
        batch = begin(asking, 400)
        before = reached(asking, batch.id, 5).request_counts.completed
        asking.batches.cancel(batch.id)
        batch = ended(asking, batch.id)
        assert batch.status == "cancelled"
        assert batch.request_counts.completed < 400
        files = [asking.files.content(id).text for id in (batch.output_file_id, batch.error_file_id)]
        good, bad = ([json.loads(line)["custom_id"] for line in file.splitlines()] for file in files)
        assert len(good) == batch.request_counts.completed >= before
        assert sorted(good + bad) == sorted(f"row-{n}" for n in range(400))


def test_workers_that_are_killed_lose_and_double_no_line(start_service: StartService, tmp_path: Path) -> None:
    service = started(start_service, tmp_path)
    with client_at(service.port) as asking:
        batch = begin(asking, 90)
        for kill in range(3):
            reached(asking, batch.id, 10 + 20 * kill)
            os.kill(service.workers[0], signal.SIGKILL)
            until(lambda: len(service.workers) == 2, "another worker is there", PATIENCE_S)
        batch = ended(asking, batch.id)
        assert_all_are_answered_once(asking, batch, 90)


def test_a_master_that_is_killed_with_all_its_workers_loses_no_line(
    start_service: StartService, tmp_path: Path
) -> None:
    first = started(start_service, tmp_path)
    with client_at(first.port) as asking:
        batch = begin(asking, 60)
        assert reached(asking, batch.id, 20).status == "in_progress"
    os.killpg(first.process.pid, signal.SIGKILL)
    first.process.wait(10)
    second = started(start_service, tmp_path)
    with client_at(second.port) as asking:
        assert_all_are_answered_once(asking, ended(asking, batch.id), 60)


def test_a_stop_in_the_middle_hands_the_rest_to_the_next_start(start_service: StartService, tmp_path: Path) -> None:
    first = started(start_service, tmp_path)
    with client_at(first.port) as asking:
        batch = begin(asking, 60)
        assert reached(asking, batch.id, 20).status == "in_progress"
    first.process.send_signal(signal.SIGTERM)
    assert first.process.wait(60) == 0
    assert "Traceback" not in first.log
    second = started(start_service, tmp_path)
    with client_at(second.port) as asking:
        assert_all_are_answered_once(asking, ended(asking, batch.id), 60)
