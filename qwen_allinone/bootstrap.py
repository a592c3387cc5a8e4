"""The only place that wires objects together."""

from __future__ import annotations

import atexit
import logging
import sys
from pathlib import Path

from flask import Flask

from qwen_allinone.allinone import AllInOne
from qwen_allinone.cpu import compute_threads
from qwen_allinone.engine import Engine, Limits, Loaded
from qwen_allinone.http import create_app
from qwen_allinone.model import checkpoint
from qwen_allinone.settings import Settings
from qwen_allinone.tasks import Registry

log = logging.getLogger(__name__)


def build_app(settings: Settings | None = None) -> Flask:
    """The WSGI app of one worker. The model loads in the engine's thread after this returns.

    Raises:
        StartupError: a setting or a task file is at fault.
    """
    settings = settings or Settings.load()
    configure_logging(settings)
    service = build_service(settings)
    return create_app(service, model_name=public_name(settings.model), max_body_bytes=settings.max_body_bytes)


def public_name(model: str) -> str:
    """What clients may know of QAIO_MODEL: of a folder only its name, not where it lies."""
    return Path(model).resolve().name if checkpoint.is_folder(model) else model


def build_service(settings: Settings) -> AllInOne:
    """The service with its engine started."""
    service = AllInOne(Registry.load(settings.prompts), deadline_s=settings.deadline_s)
    limits = Limits(
        threads=compute_threads(settings.threads, settings.workers),
        slots=settings.slots,
        kv_tokens=settings.kv_tokens,
        step_tokens=settings.step_tokens,
        max_waiting=settings.max_waiting,
    )
    engine = Engine(lambda: _load(settings, service), limits)
    service.attach(engine)
    engine.start()
    # A thread inside torch while the interpreter is torn down aborts the process.
    atexit.register(engine.stop)
    return service


def configure_logging(settings: Settings) -> None:
    """One format on stderr for everything this process says."""
    logging.basicConfig(
        stream=sys.stderr,
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)s [%(process)d] %(name)s: %(message)s",
    )
    for chatty in ("httpx", "httpcore", "filelock"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _load(settings: Settings, service: AllInOne) -> Loaded:
    """Find and load the model, and fit the tasks to it. Runs in the engine's thread."""
    service.unbind()
    if settings.model == checkpoint.DEMO:
        log.warning("QAIO_MODEL=demo: a tiny stand-in model, not Qwen; see demo/MODEL_CARD.md")
    loaded = checkpoint.load(settings.model, settings.model_revision, settings.weights, settings.context)
    prefixes = service.bind(loaded)
    log.info("ready: model %s, kernel %s, weights %s", loaded.name, loaded.model.kernel, settings.weights)
    return Loaded(loaded.model, prefixes)
