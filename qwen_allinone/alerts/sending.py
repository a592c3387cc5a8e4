"""Sends what the outbox holds: a thread for each channel, so that one that hangs holds up no other.

Of all processes one at a time sends for a channel, by a lease. A message is tried until its receiver takes it, with
pauses that grow, for a day; then it is given up and kept for people to look at.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Mapping
from typing import Protocol

from qwen_allinone.alerts.channels import Sender
from qwen_allinone.alerts.webhook import SendFailed
from qwen_allinone.errors import OutboxUnavailable
from qwen_allinone.state import Message, SqliteOutbox, now
from qwen_allinone.state.lease import Lease

log = logging.getLogger(__name__)

_LOOKS_EVERY_S = 1.0
# Longer than a send can take: connecting and reading have 10 s each, and Apprise pauses up to 6 s before.
_HOLD_S = 90.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 900.0
_GIVEN_UP_AFTER_S = 86_400.0
# Of a receiver that says that it will never take a message: it may have been configured wrong for a moment.
_MOST_REFUSALS = 4


class Counts(Protocol):
    """Hears how alerts fare."""

    def count_alert(self, rule: str, outcome: str) -> None:
        """What became of an event: see state.Outcome; `lost`: there was no room to keep it."""

    def expect_channel(self, channel: str) -> None:
        """There is one of this name, of which there is nothing to count yet."""

    def count_alert_message(self, channel: str, outcome: str) -> None:
        """A try: sent, failed or dead."""


class ChannelThread:
    """Sends for one channel."""

    def __init__(self, name: str, sender: Sender, outbox: SqliteOutbox, counts: Counts | None) -> None:
        self._name, self._sender, self._outbox, self._counts = name, sender, outbox, counts
        self._lease = Lease.take(_HOLD_S, _HOLD_S)
        self._failures = 0  # in a row, of the channel and not of a message
        self._stopping = threading.Event()
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"alerts {name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """There is something new."""
        self._woken.set()

    def stop(self) -> None:
        """Begin nothing more. What is being sent is not waited for: another process sends it again."""
        self._stopping.set()
        self._woken.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._woken.clear()
            wait_s = _LOOKS_EVERY_S
            try:
                if self._outbox.exists:
                    wait_s = self.send_next()
            except OutboxUnavailable:  # it has said so
                pass
            except Exception:
                log.exception("alerts: channel %s: unexpected error; tried again later", self._name)
            if wait_s > _LOOKS_EVERY_S:
                self._stopping.wait(wait_s)  # the channel is down: nothing new makes it better
            elif wait_s:
                self._woken.wait(wait_s)
        try:
            if self._outbox.exists:
                self._outbox.let_go(self._lease)
        except OutboxUnavailable:
            pass

    def send_next(self) -> float:
        """Send one message; returns for how many seconds there is nothing more to do. Raises OutboxUnavailable."""
        message = self._outbox.take(self._name, self._lease)
        if message is None:
            return _LOOKS_EVERY_S
        try:
            self._sender.send(message)
        except SendFailed as error:
            return self._failed(message, error)
        except Exception as error:  # a channel's own fault must not cost the message
            return self._failed(message, SendFailed(f"{type(error).__name__}: {error}"))
        self._failures = 0
        self._outbox.sent(message)
        self._count("sent")
        return 0.0

    def _failed(self, message: Message, error: SendFailed) -> float:
        old = now() - message.created >= _GIVEN_UP_AFTER_S
        if old or (error.is_final and message.tries >= _MOST_REFUSALS):
            log.error("alerts: channel %s: %s is given up: %s", self._name, message.id, error)
            self._outbox.failed(message, str(error), again_in_s=None)
            self._count("dead")
            return 0.0
        log.warning("alerts: channel %s: %s, try %d: %s", self._name, message.id, message.tries, error)
        self._outbox.failed(message, str(error), again_in_s=max(pause_s(message.tries), error.wait_s))
        self._count("failed")
        if error.is_final:
            return 0.0  # of this message alone; the next may be taken
        self._failures += 1
        return max(pause_s(self._failures), error.wait_s)

    def _count(self, outcome: str) -> None:
        if self._counts:
            self._counts.count_alert_message(self._name, outcome)


def pause_s(tries: int) -> float:
    """Seconds after so many failed tries: twice as long each time, and not the same for all."""
    return min(_FIRST_PAUSE_S * 2.0 ** min(tries - 1, 20), _LONGEST_PAUSE_S) * random.uniform(0.8, 1.2)


class Senders:
    """All channels of a process."""

    def __init__(self, channels: Mapping[str, Sender], outbox: SqliteOutbox, counts: Counts | None = None) -> None:
        if counts:
            for name in channels:
                counts.expect_channel(name)
        self._outbox = outbox
        self._threads = [ChannelThread(name, sender, outbox, counts) for name, sender in channels.items()]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        for thread in self._threads:
            thread.wake()

    def stop(self) -> None:
        for thread in self._threads:
            thread.stop()

    def wait_until_sent(self, seconds: float) -> int:
        """Wait until nothing waits, `seconds` at most; returns how many messages still do. Raises OutboxUnavailable."""
        ends = time.monotonic() + seconds
        while (left := self._outbox.counts()["waiting"]) and time.monotonic() < ends:
            time.sleep(0.2)
        return left
