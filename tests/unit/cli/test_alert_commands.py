"""`qwen-allinone alerts`: channels are tried, what waits is shown and sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from qwen_allinone.cli import app
from qwen_allinone.state import AlertEvent, SqliteOutbox, now
from qwen_allinone.state.lease import Lease
from tests.support.receiver import Receiver, write_alerts

ERRORS = 2
RULE = "  - {name: a, when: {intent: 投诉}, channels: ops}\n"


@pytest.fixture
def receiver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    made = Receiver()
    monkeypatch.setenv("QAIO_ALERTS", str(write_alerts(tmp_path, made.url, RULE)))
    monkeypatch.setenv("QAIO_ALERTS_OUTBOX", str(tmp_path / "alerts.db"))
    monkeypatch.setenv("QAIO_ALERTS_NETWORKS", "127.0.0.1")
    yield made
    made.down()


def command(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["alerts", *arguments])


def test_a_test_reaches_the_channel_or_says_why_not(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    done = command("test")
    assert done.exit_code == 0 and "ops: sent" in done.output and receiver.taken[0].signed
    receiver.behave = lambda number: 500
    failed = command("test", "ops")
    assert failed.exit_code == 1 and "ops: not sent: answered 500" in failed.output
    assert "did you mean ops?" in command("test", "opps").output
    monkeypatch.setenv("QAIO_ALERTS_NETWORKS", "10.0.0.0/8")
    refused = command("test")
    assert refused.exit_code == ERRORS and "line 2" in refused.output and "QAIO_ALERTS_NETWORKS" in refused.output


def test_what_is_dead_is_listed_and_sent_again_with_its_id(receiver: Receiver, tmp_path: Path) -> None:
    assert json.loads(command("list", "--json").output) == {"counts": {}, "messages": []}
    outbox = SqliteOutbox(tmp_path / "alerts.db")
    outbox.add([AlertEvent("1", "a", now(), ("ops",), json.dumps({"rule": "a", "text": "不给人看"}))])
    lease = Lease.take(60, 60)
    message = outbox.take("ops", lease)
    assert message
    outbox.failed(message, "answered 404", again_in_s=None)
    outbox.let_go(lease)
    outbox.close()
    listed = command("list")
    assert (
        f"{message.id}  dead" in listed.output and "answered 404" in listed.output and "不给人看" not in listed.output
    )
    assert command("retry", "msg_other").exit_code == ERRORS
    done = command("retry", message.id)
    assert done.exit_code == 0 and "1 due, 0 still waiting" in done.output, done.output
    assert [(one.id, one.attempt) for one in receiver.taken] == [(message.id, 2)]


def test_what_cannot_be_sent_still_waits(receiver: Receiver, tmp_path: Path) -> None:
    receiver.down()
    outbox = SqliteOutbox(tmp_path / "alerts.db")
    outbox.add([AlertEvent("1", "a", now(), ("ops",), json.dumps({"rule": "a"}))])
    outbox.close()
    done = command("retry", "--seconds", "1")
    assert done.exit_code == 1 and "1 due, 1 still waiting" in done.output


def test_without_a_file_of_rules_it_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    told = command("test")
    assert told.exit_code == ERRORS and "QAIO_ALERTS is not set" in told.output
