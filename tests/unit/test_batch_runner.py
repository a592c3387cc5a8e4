"""The thread that works batches off: it keeps its hold on a file for as long as it looks, and no chore stops the rest."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask

from qwen_allinone.engine import Status
from qwen_allinone.errors import BatchesUnavailable
from qwen_allinone.http.batch_runner import BatchRunner
from qwen_allinone.state import Quota, SqliteBatches
from qwen_allinone.state.lease import Lease

TASK = "/v1/tasks/sentiment"
LINE = b'{"custom_id": "%d", "method": "POST", "url": "/v1/tasks/sentiment", "body": {"text": "a"}}\n'
MOST = 1000

Make = Callable[[SqliteBatches], BatchRunner]


@pytest.fixture
def make() -> Make:
    def made(store: SqliteBatches) -> BatchRunner:
        """With an engine that is free, which these tests ask nothing."""
        engine = SimpleNamespace(status=Status.READY, waiting=0, has_free_slot=True, admitted=0)
        service: Any = SimpleNamespace(engine=engine, registry=[SimpleNamespace(name="sentiment")])
        return BatchRunner(
            Flask(__name__), service, store, at_once=2, deadline_s=60.0, most_bytes=MOST, woken=threading.Event()
        )

    return made


class SlowStore(SqliteBatches):
    """Its blocks take their time, and somebody else looks for a file to look through at each of them."""

    taken_by_others = 0
    wait_s = 0.3

    def blocks(self, id: str) -> Iterator[bytes]:
        for block in super().blocks(id):
            time.sleep(self.wait_s)
            self.taken_by_others += self.draft(Lease.take(60.0, 60.0)) is not None
            yield block


def begun(store: SqliteBatches, content: bytes) -> str:
    lines = len([line for line in content.splitlines() if line.strip()])
    file = store.add_file("alice", "in.jsonl", len(content), lines, [content], None)
    return store.create_batch("alice", file.id, TASK).id


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"x" * 65_536 * 16, "line_too_long"),  # one line
        (b"\n" * 65_536 * 16 + LINE % 1, None),  # none to keep for long
        (b"x\n" + LINE % 1 + b"\n" * 65_536 * 16, "invalid_json_line"),  # none that will be kept
    ],
)
def test_a_file_is_held_for_as_long_as_it_is_looked_through(
    make: Make, tmp_path: Path, content: bytes, code: str | None
) -> None:
    store = SlowStore(tmp_path / "batches.db", quota=Quota(), busy_s=20.0)
    batch = begun(store, content)
    lease = Lease.take(3.0, 60.0)  # looking takes longer
    draft = store.draft(lease)
    assert draft
    make(store)._look_through(draft, lease)
    store.close()
    found = store.batch("alice", batch)
    assert store.taken_by_others == 0
    assert (found.status, [one.code for one in found.errors]) == (("failed", [code]) if code else ("in_progress", []))


def test_who_ends_or_loses_his_hold_looks_no_further(make: Make, tmp_path: Path) -> None:
    store = SlowStore(tmp_path / "batches.db", quota=Quota(), busy_s=20.0)
    batch = begun(store, (LINE % 1) + b"\n" * 65_536 * 40)
    lease = Lease.take(0.1, 60.0)
    draft = store.draft(lease)
    assert draft
    store.cancel("alice", batch)
    began = time.monotonic()
    make(store)._look_through(draft, lease)
    assert time.monotonic() - began < 40 * store.wait_s
    assert store.batch("alice", batch).status == "cancelling"
    store.close()


@pytest.mark.parametrize("chore", ["settle", "drop_expired", "erase"])
@pytest.mark.parametrize("error", [BatchesUnavailable(), ValueError("unexpected")])
def test_a_chore_that_fails_stops_neither_drafts_nor_lines(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chore: str, error: Exception
) -> None:
    store = SqliteBatches(tmp_path / "batches.db", quota=Quota(), busy_s=20.0)
    batch = begun(store, LINE % 1 + LINE % 2)

    def fail(*given: Any) -> None:
        raise error

    monkeypatch.setattr(store, chore, fail)
    runner = make(store)
    answered: list[int] = []
    monkeypatch.setattr(runner, "_ask", lambda line: answered.append(line.number))
    runner.start()
    ends = time.monotonic() + 60
    while len(answered) < 2 and time.monotonic() < ends:
        time.sleep(0.02)
    runner.stop()
    assert sorted(answered) == [1, 2]
    assert store.batch("alice", batch).status == "in_progress"
    store.close()
