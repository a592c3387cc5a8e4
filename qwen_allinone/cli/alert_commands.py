"""`qwen-allinone alerts`: try the channels, look at what waits or was given up, send it again."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

import typer

from qwen_allinone import bootstrap
from qwen_allinone.alerts import Alerts, Senders, SendFailed, load_alerts
from qwen_allinone.cli.terminal import AsJson, err, exit_with, in_terminal, out, print_json, tell, worded
from qwen_allinone.errors import DataFileError, QaioError, SettingsError
from qwen_allinone.settings import Settings
from qwen_allinone.state import Message, SqliteOutbox, now
from qwen_allinone.tasks import Registry
from qwen_allinone.wording import meant, said

FAILED = 1
_STATES = {"waiting": said("it_waits"), "dead": said("it_is_dead")}


def test(
    channels: Annotated[list[str] | None, typer.Argument(help=worded("arg_channels"))] = None,
) -> None:
    """Check QAIO_ALERTS, and send a test message to each channel, at once and past the outbox."""
    try:
        alerts = _alerts(Settings.load())
        wanted = channels or list(alerts.senders)
        for name in wanted:
            if name not in alerts.senders:
                known = alerts.senders
                raise DataFileError(said("no_such_channel", name=name, meant=meant(name, known), known=known))
    except QaioError as error:
        raise exit_with(error) from None
    tell(out, said("alerts_in_order", rules=len(alerts.rules), channels=len(alerts.senders)))
    failed = False
    for name in wanted:
        try:
            alerts.senders[name].send(_test_message(name))
            tell(out, said("test_sent", name=name))
        except SendFailed as error:
            failed = True
            tell(out, said("test_not_sent", name=name, error=error))
    if failed:
        raise typer.Exit(FAILED)


def list_alerts(as_json: AsJson = False) -> None:
    """Show the alerts that wait, with why, and the dead ones: those that were given up."""
    try:
        outbox = _outbox(Settings.load())
        counts = outbox.counts() if outbox.exists else {}
        found = [m for state in ("waiting", "dead") if counts for m in outbox.messages(state, 1000)]
    except QaioError as error:
        raise exit_with(error) from None
    if as_json:
        shown = [{k: v for k, v in asdict(message).items() if k != "body"} for message in found]
        print_json({"counts": dict(counts), "messages": shown})
        return
    for message in found:
        at = datetime.fromtimestamp(message.created).isoformat(" ", "seconds")
        line = f"{message.id}  {in_terminal(_STATES[message.state]):<7}  {at}  {message.rule} -> {message.channel}  "
        why = said("because", problem=message.error) if message.error else ""
        tell(out, line + worded("so_many_tries", count=message.tries, why=why))
    numbers = {"waiting": 0, "dead": 0, "sent": 0} | dict(counts)
    tell(err, said("alerts_by_state", **numbers))


def retry(
    ids: Annotated[list[str] | None, typer.Argument(help=worded("arg_messages"))] = None,
    seconds: Annotated[float, typer.Option(min=0, max=3600, help=worded("opt_seconds"))] = 30.0,
) -> None:
    """Make waiting and dead alerts due now, and send them: with the running service, or here if there is none."""
    try:
        settings = Settings.load()
        alerts, outbox = _alerts(settings), _outbox(settings)
        count = outbox.retry(ids or None) if outbox.exists else 0
        if ids and count < len(set(ids)):
            raise DataFileError(said("not_waiting", count=len(set(ids)) - count))
        left = send_what_waits(alerts, outbox, seconds) if count else 0
    except QaioError as error:
        raise exit_with(error) from None
    tell(out, said("alerts_due", count=count, left=left))
    if left:
        raise typer.Exit(FAILED)


def send_what_waits(alerts: Alerts, outbox: SqliteOutbox, seconds: float) -> int:
    """Send in this process what no other sends; returns how many messages wait after so many seconds.

    Raises OutboxUnavailable.
    """
    senders = Senders(alerts.senders, outbox)
    senders.start()
    try:
        return senders.wait_until_sent(seconds)
    finally:
        senders.stop()


def _alerts(settings: Settings) -> Alerts:
    if settings.alerts is None:
        raise SettingsError(said("alerts_not_set"))
    return load_alerts(settings.alerts, Registry.load(settings.prompts), settings.alerts_networks)


def _outbox(settings: Settings) -> SqliteOutbox:
    return bootstrap.alerts_outbox(settings)


def _test_message(channel: str) -> Message:
    told: dict[str, Any] = {
        "rule": "test",
        "title": "测试 test",
        "source": "live",
        "place": "qwen-allinone alerts test",
        "labels": {},
        "at": now(),
    }
    return Message(f"msg_test_{int(now())}", channel, "test", now(), json.dumps(told), "waiting", 1, now())
