"""Where the service tells of texts: rules are looked at, events go to the spool, a thread takes them to the outbox."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from qwen_allinone.alerts.matching import Subject, events
from qwen_allinone.alerts.rules import Rule
from qwen_allinone.alerts.sending import Counts, Senders
from qwen_allinone.alerts.spool import Spool
from qwen_allinone.errors import OutboxUnavailable
from qwen_allinone.state import AlertEvent, SqliteOutbox, now

log = logging.getLogger(__name__)

_LOOKS_EVERY_S = 1.0
_GATHERS_S = 0.05  # so that many events at once are one transaction
_LOOKS_FOR_LEFT_S = 5.0
_SWEEP_EVERY_S = 3600.0


class Notices:
    """One worker's part. Thread-safe."""

    def __init__(
        self, rules: Sequence[Rule], spool: Spool, outbox: SqliteOutbox, senders: Senders, counts: Counts
    ) -> None:
        self._rules, self._spool, self._outbox, self._senders, self._counts = rules, spool, outbox, senders, counts
        self._stopping = threading.Event()
        self._woken = threading.Event()
        self._looked = self._swept = float("-inf")
        self._thread = threading.Thread(target=self._run, name="alerts", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._senders.start()

    def stop(self) -> None:
        """Take in what there is, and begin nothing more."""
        self._stopping.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(5.0)
        self._senders.stop()

    def tell(self, subject: Subject) -> None:
        """Keep what the rules make of a text. Waits for nobody, and never raises."""
        try:
            for event in events(self._rules, subject, now()):
                if self._spool.put(event.line()):
                    self._woken.set()
                else:
                    self._counts.count_alert(event.rule, "lost")
                    log.error("alerts: %s: an event is lost, there is no room to keep it", event.rule)
        except Exception:
            log.exception("alerts: a text could not be looked at")

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._woken.wait(_LOOKS_EVERY_S)
            self._stopping.wait(_GATHERS_S)
            self._woken.clear()
            self._safely()
        self._safely()

    def _safely(self) -> None:
        try:
            self.take_in()
        except OutboxUnavailable:  # it has said so; what is in the spool waits
            self._stopping.wait(_LOOKS_EVERY_S)
        except Exception:
            log.exception("alerts: unexpected error; tried again later")

    def take_in(self) -> None:
        """Take events from the spool to the outbox. Raises OutboxUnavailable."""
        # First: where the file is full, nothing that comes after this is done.
        if self._outbox.exists and time.monotonic() >= self._swept + _SWEEP_EVERY_S:
            self._swept = time.monotonic()
            self._outbox.sweep()
        with self._spool.taken() as lines:
            self._add(lines)
        if time.monotonic() >= self._looked + _LOOKS_FOR_LEFT_S:
            self._looked = time.monotonic()
            with self._spool.left_by_others() as lines:
                self._add(lines)

    def _add(self, lines: Sequence[bytes]) -> None:
        found = [event for line in lines if (event := _read(line))]
        if not found:
            return
        for event, outcome in self._outbox.add(found):
            self._counts.count_alert(event.rule, outcome)
        self._senders.wake()


def _read(line: bytes) -> AlertEvent | None:
    try:
        return AlertEvent.of(line)
    except ValueError:
        log.error("alerts: a line of the spool is none of ours and is passed over")
        return None
