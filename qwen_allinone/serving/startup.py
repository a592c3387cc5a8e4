"""What is looked at before workers are started: by the master, at its start and whenever it is told to reload."""

from __future__ import annotations

import logging
from typing import Any

from qwen_allinone.access import Credentials
from qwen_allinone.errors import StartupError
from qwen_allinone.settings import Settings
from qwen_allinone.tasks import Registry
from qwen_allinone.telemetry import audit

log = logging.getLogger(__name__)


def checked_settings() -> Settings:
    """The settings. Raises StartupError if a setting, a task folder, the keys or the audit file is at fault."""
    settings = Settings.load()
    Registry.load(settings.prompts)
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
        except StartupError as error:
            log.error("not reloaded, what was there goes on serving: %s", error)
            return
        reload()

    server.reload = reload_if_sound
