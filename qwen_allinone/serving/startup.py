"""What is looked at before workers are started: by the master, at its start and whenever it is told to reload."""

from __future__ import annotations

import logging
from typing import Any

from qwen_allinone.access import Credentials
from qwen_allinone.errors import StartupError
from qwen_allinone.settings import Settings
from qwen_allinone.tasks import ROUTE, Registry, chat_tasks, routes_of
from qwen_allinone.telemetry import audit

log = logging.getLogger(__name__)


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


def keep_serving_at_a_bad_reload(server: Any) -> None:
    """Have Gunicorn's `server` (its Arbiter) look before it reloads (SIGHUP).

    It would read its configuration anew, which ends the master where something is at fault, and the workers with it. So
    that is told, and those who serve go on as they are.
    """
    reload = server.reload

    def reload_if_sound() -> None:
        try:
            checked_settings()
        except (StartupError, OSError) as error:
            log.error("not reloaded, what was there goes on serving: %s", error)
            return
        reload()

    server.reload = reload_if_sound
