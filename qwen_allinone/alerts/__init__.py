"""Alerts: rules over what tasks say of texts, and messages to people's phones. Knows no Flask and no model."""

from qwen_allinone.alerts.matching import Heard, Subject, events
from qwen_allinone.alerts.notices import Notices
from qwen_allinone.alerts.rules_file import Alerts, load_alerts
from qwen_allinone.alerts.sending import Counts, Senders
from qwen_allinone.alerts.spool import Spool
from qwen_allinone.alerts.webhook import SendFailed

__all__ = [
    "Alerts", "Counts", "Heard", "Notices", "SendFailed", "Senders", "Spool", "Subject", "events", "load_alerts",
]  # fmt: skip
