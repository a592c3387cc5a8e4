"""What is looked at before workers are started: by the master, at its start and whenever it is told to reload."""

from __future__ import annotations

import errno
import gc
import importlib
import os
import socket
import time
from collections.abc import Sequence
from contextlib import closing

from qwen_allinone.access import Credentials
from qwen_allinone.alerts import load_alerts
from qwen_allinone.errors import SettingsError, StartupError
from qwen_allinone.settings import Settings
from qwen_allinone.tasks import ROUTE, Registry, chat_tasks, routes_of
from qwen_allinone.telemetry import audit, tracing
from qwen_allinone.wording import in_language, of_environment, said

_PATIENCE_S = 3.0
# Where a socket is given to us: by systemd, or by the Gunicorn that this one replaces.
_GIVEN_SOCKETS = {"LISTEN_FDS", "GUNICORN_FD"}


def checked_settings() -> Settings:
    """The settings. Raises StartupError if a setting, a task folder, the keys, the alerts, the audit file or what is
    to send spans is at fault.

    What a task asks of the model's tokens and context shows when a worker has loaded the model, not here.
    """
    settings = Settings.load()
    registry = Registry.load(settings.prompts)
    chat_tasks(registry)
    if ROUTE in registry:
        routes_of(registry)
    Credentials(settings).check()
    if settings.alerts:
        load_alerts(settings.alerts, registry, settings.alerts_networks)
    if settings.audit_file:
        audit.check(settings.audit_file)
    tracing.check()
    return settings


def import_app() -> None:
    """Import what workers run, so that those forked from here have it at once, and in the same memory: a start, a
    reload and a killed worker's successor are seconds faster. Nothing is computed, so torch starts no thread.
    """
    importlib.import_module("qwen_allinone.bootstrap")
    gc.collect()
    gc.freeze()  # a collection in a worker leaves the shared pages alone


def refusal(error: StartupError) -> str:
    """The one line that a start ends with, in the language of the terminal."""
    return in_language(said("cannot_start", error=error), of_environment(os.environ))


def check_addresses(addresses: Sequence[object], patience_s: float = _PATIENCE_S) -> None:
    """Raises SettingsError if the service could not listen there. Gunicorn would say so in eleven lines.

    Who has just been stopped may still hold its port, so that is waited for.
    """
    if os.environ.keys() & _GIVEN_SOCKETS:
        return
    ends = time.monotonic() + patience_s
    for address in addresses:
        while isinstance(address, tuple) and (error := _problem(address)) is not None:
            if error.errno != errno.EADDRINUSE or time.monotonic() > ends:
                raise SettingsError(_told(address, error))
            time.sleep(0.1)


def _problem(address: tuple[str, int]) -> OSError | None:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    try:
        with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Gunicorn does
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        return error
    return None


def _told(address: tuple[str, int], error: OSError) -> str:
    host, port = address
    if error.errno == errno.EADDRINUSE:
        return said("port_in_use", port=port, host=host)
    if error.errno == errno.EACCES:
        return said("port_below_1024", port=port)
    return said("host_unusable", host=host, strerror=error.strerror)
