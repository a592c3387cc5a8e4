"""A service with its model loaded, for commands that compute in their own process."""

from __future__ import annotations

from rich.markup import escape

from qwen_allinone import bootstrap
from qwen_allinone.cli.terminal import err, exit_with, worded
from qwen_allinone.engine import Status
from qwen_allinone.service import Service
from qwen_allinone.settings import Settings
from qwen_allinone.tasks import Registry
from qwen_allinone.telemetry import logs


def load_service(settings: Settings, registry: Registry | None = None) -> Service:
    """The service with its model loaded, or an exit that says why not."""
    logs.configure(settings.model_copy(update={"log_level": "error"}))
    service = bootstrap.build_service(settings, registry)
    with err.status(escape(worded("loading", model=settings.model))):
        status = service.engine.wait_until_settled()
    if status is not Status.READY:
        raise exit_with(service.engine.problem)
    return service
