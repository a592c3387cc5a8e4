"""The outbox: events once, rates, pauses; messages until they are sent; one sender at a time."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from qwen_allinone.state import AlertEvent, SqliteOutbox, now
from qwen_allinone.state.lease import Lease
from qwen_allinone.state.sqlite_outbox import KEEP_SENT_S

BODY = json.dumps({"rule": "a", "text": "退款"})


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[SqliteOutbox]:
    made = SqliteOutbox(tmp_path / "alerts.db")
    yield made
    made.close()


def event(id: str, at: float | None = None, **more: float) -> AlertEvent:
    return AlertEvent(id, "a", now() if at is None else at, ("ops", "desk"), BODY, **more)  # type: ignore[arg-type]


def lease() -> Lease:
    return Lease.take(60, 60)


def outcomes(outbox: SqliteOutbox, *events: AlertEvent) -> list[str]:
    return [outcome for _, outcome in outbox.add(events)]


def test_an_event_becomes_a_message_for_each_channel_however_often_it_comes(outbox: SqliteOutbox) -> None:
    assert outcomes(outbox, event("1"), event("1"), event("2")) == ["fired", "known", "fired"]
    waiting = outbox.messages("waiting", 10)
    assert [message.channel for message in waiting] == ["ops", "desk", "ops", "desk"]
    assert len({message.id for message in waiting}) == 4


def test_a_rate_is_reached_by_so_many_events_within_the_time(outbox: SqliteOutbox) -> None:
    at = now()
    rate = {"count": 3, "within_s": 60.0}
    said = outcomes(outbox, *(event(str(n), at + n * 25, **rate) for n in range(4)))  # type: ignore[arg-type]
    assert said == ["counted", "counted", "fired", "counted"]
    late = outcomes(outbox, event("x", at + 1000, **rate), event("x", at + 1001, **rate))  # type: ignore[arg-type]
    assert late == ["counted", "known"]


def test_within_its_pause_a_rule_is_held_back_and_the_next_alert_says_how_often(outbox: SqliteOutbox) -> None:
    at = now()
    said = outcomes(outbox, *(event(str(n), at + n * 25, pause_s=60.0) for n in range(4)))
    assert said == ["fired", "held", "held", "fired"]
    held = [json.loads(message.body)["held_back"] for message in outbox.messages("waiting", 10)]
    assert held == [0, 0, 2, 2]


def test_a_clock_that_was_set_back_holds_nothing_back(outbox: SqliteOutbox) -> None:
    assert outcomes(outbox, event("1", 2e9, pause_s=60.0), event("2", 1e9, pause_s=60.0)) == ["fired", "fired"]


def test_one_process_sends_for_a_channel_and_what_it_said_is_erased(outbox: SqliteOutbox) -> None:
    outbox.add([event("1"), event("2")])
    first, second = lease(), lease()
    message = outbox.take("ops", first)
    assert message and message.tries == 1 and json.loads(message.body)["text"] == "退款"
    assert outbox.take("ops", second) is None, "another sends for this channel"
    assert outbox.take("desk", second), "but not for that one"
    outbox.sent(message)
    (done,) = outbox.messages("sent", 10)
    assert (done.id, done.body) == (message.id, "")
    outbox.let_go(first)
    taken = outbox.take("ops", second)
    assert taken and taken.id != message.id


def test_a_sender_that_died_is_followed_and_its_message_is_marked_as_tried(outbox: SqliteOutbox) -> None:
    outbox.add([event("1")])
    child = subprocess.Popen(["true"])
    child.wait()
    mine = lease()
    dead = Lease(mine.token.replace(f":{os.getpid()}:", f":{child.pid}:"), 60, 60)
    message = outbox.take("ops", dead)
    again = outbox.take("ops", mine)
    assert message and again and (again.id, again.tries) == (message.id, 2)


def test_a_message_waits_for_its_time_and_a_dead_one_for_people(outbox: SqliteOutbox) -> None:
    outbox.add([event("1")])
    mine = lease()
    message = outbox.take("ops", mine)
    assert message
    outbox.failed(message, "answered 500", again_in_s=60)
    assert outbox.take("ops", mine) is None
    outbox.failed(message, "answered 404", again_in_s=None)
    (dead,) = outbox.messages("dead", 10)
    assert (dead.error, dead.tries) == ("answered 404", 1)
    assert outbox.counts() == {"waiting": 1, "dead": 1, "sent": 0}
    assert outbox.retry(["msg_of_nobody"]) == 0 and outbox.retry(None) == 2
    again = outbox.take("ops", mine)
    assert again and (again.id, again.tries) == (message.id, 2)


def test_what_is_old_is_forgotten_and_what_waits_is_not(outbox: SqliteOutbox) -> None:
    old = now() - KEEP_SENT_S - 10
    outbox.add([event("1", old), event("2", old, count=2, within_s=60.0)])
    outbox.sweep()
    assert outbox.counts()["waiting"] == 2
    assert outcomes(outbox, event("1")) == ["fired"], "a week later nobody remembers that id"
    assert outbox.counts()["waiting"] == 2, "but the message itself is still the same one"
