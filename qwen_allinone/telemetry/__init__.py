"""What the service tells of itself: log lines, the audit log, metrics, spans. No Flask, no engine."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Protocol

from qwen_allinone.telemetry.audit import AuditLog
from qwen_allinone.telemetry.metrics import Metrics
from qwen_allinone.telemetry.records import AnswerRecord, RequestRecord
from qwen_allinone.telemetry.tracing import Tracing

__all__ = ["AnswerRecord", "Meter", "RequestRecord", "Telemetry", "Tracing"]

_requests = logging.getLogger("qwen_allinone.request")
_log = logging.getLogger(__name__)


class Meter(Protocol):
    """What keeps account of finished requests."""

    def count(self, request: RequestRecord) -> None:
        """Count one; at once, whatever is behind it."""

    def close(self) -> None:
        """Write what is left."""


@dataclass(frozen=True)
class Telemetry:
    """Where finished requests are told. `tells_text`: the log may quote users (QAIO_LOG_TEXT). `usage`: None where
    nobody keeps account. `tracing`: None where no spans are wanted."""

    metrics: Metrics
    audit: AuditLog | None = None
    tells_text: bool = False
    usage: Meter | None = None
    tracing: Tracing | None = None

    def close(self) -> None:
        """At the end of the process: stop watching, write what is left."""
        self.metrics.stop()
        if self.audit:
            self.audit.flush()
        if self.usage:
            self.usage.close()
        if self.tracing:
            self.tracing.close()

    def record(self, request: RequestRecord, *, quiet: bool, waited_for: bool = True) -> None:
        """Tell of a finished request in all places. `quiet`: a supervisor's question, logged at debug only.
        `waited_for`: somebody did, so that its latency counts; a line of a batch is logged at debug too. Neither gets a
        span.

        Never raises: the answer is out, and nothing about telling of it may undo that.
        """
        try:
            self.metrics.count(request, timed=waited_for and not quiet)
            if self.usage and not quiet:
                self.usage.count(request)
            if self.audit and not quiet:
                self.audit.write(request)
            _requests.log(
                logging.INFO if waited_for and not quiet else logging.DEBUG, "request", extra=request.fields()
            )
            if self.tracing and waited_for and not quiet:
                self.tracing.tell(request)
        except Exception:
            _log.exception("a finished request could not be told of")
