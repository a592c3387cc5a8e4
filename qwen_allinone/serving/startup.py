"""What is looked at before workers are started: by the master, at its start and whenever it is told to reload."""

from __future__ import annotations

from qwen_allinone.access import Credentials
from qwen_allinone.settings import Settings
from qwen_allinone.tasks import ROUTE, Registry, chat_tasks, routes_of
from qwen_allinone.telemetry import audit


def checked_settings() -> Settings:
    """The settings. Raises StartupError if a setting, a task folder, the keys or the audit file is at fault.

    What a task asks of the model's tokens and context shows when a worker has loaded the model, not here.
    """
    settings = Settings.load()
    registry = Registry.load(settings.prompts)
    chat_tasks(registry)
    if ROUTE in registry:
        routes_of(registry)
    Credentials(settings).check()
    if settings.audit_file:
        audit.check(settings.audit_file)
    return settings
