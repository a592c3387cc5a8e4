"""The outbox: events once, rates, pauses; messages until they are sent; one sender at a time."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from qwen_allinone.alerts import Notices, Senders, Spool
from qwen_allinone.errors import OutboxUnavailable
from qwen_allinone.state import AlertEvent, SqliteOutbox, now, sqlite_outbox
from qwen_allinone.state.lease import Lease
from qwen_allinone.state.sqlite_outbox import KEEP_SENT_S
from tests.support.alerting_process import Uncounted

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


def test_an_event_that_comes_in_late_is_held_back_as_one_in_time(outbox: SqliteOutbox) -> None:
    at = now()
    assert outcomes(outbox, event("1", at, pause_s=60.0), event("2", at - 5, pause_s=60.0)) == ["fired", "held"]


def test_nothing_is_kept_of_what_is_held_back_and_cannot_come_again(outbox: SqliteOutbox) -> None:
    at = now()
    outbox.add([event("1", at, pause_s=1e6)])
    crowd = [event(f"held {n}", at + n, pause_s=1e6) for n in range(3000)]
    outbox.add([replace(one, may_come_again=False) for one in crowd])
    outbox.add([event("row", at + 1, pause_s=1e6)])
    assert ids_in(outbox) == {"1", "row"}
    fired = replace(event("2", at + 2e6), may_come_again=False)
    assert outcomes(outbox, fired, fired) == ["fired", "known"], "its line may be read again after a kill"
    assert json.loads(outbox.messages("waiting", 9)[-1].body)["held_back"] == 3001


def ids_in(outbox: SqliteOutbox) -> set[str]:
    with closing(sqlite3.connect(outbox._file)) as db:
        return {id for (id,) in db.execute("SELECT id FROM seen")}


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqliteOutbox]:
    monkeypatch.setattr(sqlite_outbox, "_ROOM_EVERY_S", 0.0)
    made = SqliteOutbox(tmp_path / "alerts.db", max_mb=1)
    yield made
    made.close()


def fill(outbox: SqliteOutbox, first: AlertEvent, events: int = 30_000) -> None:
    """Take in that many held events of its rule, each a second after the one before."""
    outbox.add([first])
    for begin in range(0, events, 500):
        outbox.add([event(f"{first.id} {n:040}", first.at + n / 100, pause_s=1e6) for n in range(begin, begin + 500)])


def test_a_full_file_forgets_first_what_is_old(small: SqliteOutbox, caplog: pytest.LogCaptureFixture) -> None:
    fill(small, event("old", now() - KEEP_SENT_S - 1e5, pause_s=1e6), 10_000)
    fill(small, event("new", pause_s=1e6), 12_000)
    assert ids_in(small) >= {"new", *(f"new {n:040}" for n in range(12_000))} and "old" not in ids_in(small)
    assert "forgotten" not in caplog.text


def test_a_file_that_is_full_of_ids_loses_the_oldest_and_no_message(small: SqliteOutbox) -> None:
    fill(small, event("first", pause_s=1e6))
    known = ids_in(small)
    assert f"first {29_999:040}" in known and "first" not in known
    assert small._file.stat().st_size <= 1_000_000
    assert len(small.messages("waiting", 9)) == 2


LONG = json.dumps({"rule": "a", "text": "退" * 500})


def long_event(number: int) -> AlertEvent:
    return replace(event(str(number), now() + number, pause_s=0.5), channels=("ops",), body=LONG)


def fill_with_messages(outbox: SqliteOutbox, first: int) -> int:
    """Until no more goes in; how many went in."""
    with pytest.raises(OutboxUnavailable):
        for number in range(first, 3_000):
            outbox.add([long_event(number)])
    return number - first


def test_given_up_messages_make_room_and_waiting_ones_do_not(small: SqliteOutbox) -> None:
    small.add([long_event(number) for number in range(100)])
    for message in small.messages("waiting", 100):
        small.failed(message, "answered 404", again_in_s=None)
    went_in = fill_with_messages(small, 100)
    waiting = [json.loads(message.body)["event"] for message in small.messages("waiting", 3_000)]
    assert waiting == [str(number) for number in range(100, 100 + went_in)] and went_in > 200
    assert small.counts()["dead"] < 10


def test_what_is_old_goes_though_nothing_more_can_be_taken_in(
    small: SqliteOutbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_with_messages(small, 0)
    monkeypatch.setattr(sqlite_outbox, "_ROOM_EVERY_S", float("inf"))  # so that only the sweep of the hour is left
    with closing(sqlite3.connect(small._file)) as db, db:
        db.execute("INSERT INTO seen VALUES ('old', 1.0)")
    spool = Spool(tmp_path / "spool")
    for number in range(5_000, 5_100):
        spool.put(long_event(number).line())
    notices = Notices([], spool, small, Senders({}, small, Uncounted()), Uncounted())
    with pytest.raises(OutboxUnavailable):
        notices.take_in()
    assert "old" not in ids_in(small)
    with spool.taken() as left:
        assert len(left) == 100
