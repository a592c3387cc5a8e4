"""Alerts about rows of files: each goes into the outbox before its row counts as done, and is sent meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

from qwen_allinone import bootstrap, desk
from qwen_allinone.alerts import Heard, Senders, Subject, events, load_alerts
from qwen_allinone.cli.terminal import err, worded
from qwen_allinone.errors import DataFileError, OutboxUnavailable
from qwen_allinone.feedback_columns import as_rating
from qwen_allinone.settings import Settings
from qwen_allinone.state import SqliteOutbox, now
from qwen_allinone.tasks import Masking, Registry
from qwen_allinone.wording import said

_MOST_WAIT_S = 30.0


@contextmanager
def row_alerts(
    settings: Settings, about: Mapping[str, object], folder: Path, journal: desk.Journal
) -> Iterator[desk.Tell | None]:
    """What is told of each row; None where there are no rules. A run is known again by what it asks and where to.

    Raises:
        AlertsFileError, DataFileError: the outbox cannot be written.
    """
    if settings.alerts is None:
        yield None
        return
    registry = Registry.load(settings.prompts)
    alerts = load_alerts(settings.alerts, registry, settings.alerts_networks)
    outbox = bootstrap.alerts_outbox(settings)
    run = blake2b(json.dumps([about, str(folder.absolute())], default=str).encode(), digest_size=16).hexdigest()

    def tell(feedback: desk.Feedback, answers: desk.Answers) -> None:
        text = Masking().hide(feedback.text, registry.masks)
        subject = _subject(f"{run}/{journal.done + 1}", text, feedback, answers)
        if found := list(events(alerts.rules, subject, now())):
            try:
                outbox.add(found)
            except OutboxUnavailable as error:
                told = {"place": subject.place, "error": error.__cause__, "outbox": settings.alerts_outbox}
                raise DataFileError(said("alert_not_kept", **told)) from None
            senders.wake()

    senders = Senders(alerts.senders, outbox)
    senders.start()
    try:
        yield tell
        _finish(senders, outbox)
    finally:
        senders.stop()
        outbox.close()


def _subject(key: str, text: str, feedback: desk.Feedback, answers: desk.Answers) -> Subject:
    heard = {
        "sentiment": Heard(answers.sentiment, answers.probability),
        "intent": Heard(answers.intent, answers.intent_probability),
        "care": Heard(answers.care, answers.care_probability),
        "keywords": Heard(items=answers.keywords),
    }
    stars = as_rating(feedback.rating)
    place = f"{feedback.file}:{feedback.row.line}"
    return Subject("feedback", key, text, place, heard, None if stars is None else float(stars))


def _finish(senders: Senders, outbox: SqliteOutbox) -> None:
    if not outbox.exists:
        return
    with err.status(worded("sending_alerts")):
        left = senders.wait_until_sent(_MOST_WAIT_S)
    if left:
        err.print(f"[yellow]{worded('alerts_left', count=left)}[/]", soft_wrap=True)
