"""The real WSGI app on the demo's checkpoint, its engine running, behind Flask's test client."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from qwen_allinone import bootstrap
from qwen_allinone.engine import Status
from qwen_allinone.service import Service
from qwen_allinone.settings import Settings
from qwen_allinone.state import PostgresStore
from tests.support.tasks import PROJECT, WITHOUT_CARE


class ReadingClient(FlaskClient):
    """Reads each answer to its end and closes it, as a server does."""

    def open(self, *args: Any, buffered: bool = True, **kwargs: Any) -> TestResponse:
        return super().open(*args, buffered=buffered, **kwargs)


@dataclass
class Server:
    """One worker's app and the service behind it."""

    app: Flask
    service: Service

    @property
    def client(self) -> FlaskClient:
        return self.app.test_client()

    def post(self, path: str, body: object) -> TestResponse:
        """POST `body` as JSON; bytes are sent as they are."""
        if isinstance(body, bytes):
            return self.client.post(path, data=body, content_type="application/json")
        return self.client.post(path, json=body)


StartServer = Callable[..., Server]


@contextmanager
def serve(environment: dict[str, str]) -> Iterator[StartServer]:
    started: list[Server] = []

    def start(*, ready: bool = True, **given: str) -> Server:
        settings = Settings.load(environment | given)
        service = bootstrap.build_service(settings)
        started.append(Server(bootstrap.wrap(service, settings), service))
        started[-1].app.test_client_class = ReadingClient
        if ready:
            status = service.engine.wait_until_settled(60)
            assert status is Status.READY, service.engine.problem
        return started[-1]

    yield start
    for server in started:
        if runner := server.app.extensions.get("batches"):  # or its thread looks for work until all tests are over
            runner.stop()
        if isinstance(store := server.app.extensions["sessions"], PostgresStore):
            store.stop()
        server.app.extensions["telemetry"].close()
        server.service.engine.stop()


@pytest.fixture(scope="session")
def prompts_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tasks that ship but `care`, which may fire at any text of a test."""
    folder = tmp_path_factory.mktemp("shipped") / "prompts"
    return Path(shutil.copytree(PROJECT / "prompts", folder, ignore=WITHOUT_CARE))


@pytest.fixture(scope="session")
def server(demo_checkpoint: Path, prompts_folder: Path) -> Iterator[Server]:
    """A server that all tests share; they only talk to it."""
    with serve({"QAIO_MODEL": "demo", "QAIO_THREADS": "1", "QAIO_PROMPTS": str(prompts_folder)}) as start:
        yield start()


@pytest.fixture
def start_server(demo_checkpoint: Path, prompts_folder: Path) -> Iterator[StartServer]:
    """Starts servers of a test's own, with QAIO_* settings of its own."""
    with serve({"QAIO_MODEL": "demo", "QAIO_THREADS": "1", "QAIO_PROMPTS": str(prompts_folder)}) as start:
        yield start


class Gate:
    """Stands before a server's forward pass: counts the steps, and holds them while it is shut."""

    def __init__(self, server: Server) -> None:
        self.steps = 0
        self.entered = threading.Event()
        self._open = threading.Event()
        self._open.set()
        model: Any = server.service.engine.model
        self._forward = model.forward
        model.forward = self

    def __call__(self, *args: Any) -> Any:
        self.steps += 1
        self.entered.set()
        assert self._open.wait(60), "the test never opened the gate"
        return self._forward(*args)

    def shut(self) -> None:
        self.entered.clear()
        self._open.clear()

    def open(self) -> None:
        self._open.set()


class Later:
    """A request in a thread of its own."""

    def __init__(self, ask: Callable[[], TestResponse]) -> None:
        self._answers: list[TestResponse] = []
        self._thread = threading.Thread(target=lambda: self._answers.append(ask()), daemon=True)
        self._thread.start()

    def answer(self) -> TestResponse:
        self._thread.join(60)
        assert self._answers, "no answer within a minute"
        return self._answers[0]


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for `condition`, and fail if it does not come true."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "what the test waits for did not happen"
        time.sleep(0.01)


@pytest.fixture(scope="session")
def brief(prompts_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The project's prompts, but for short replies: the tests take many turns."""
    folder = tmp_path_factory.mktemp("brief") / "prompts"
    shutil.copytree(prompts_folder, folder)
    file = folder / "chat" / "prompt.md"
    file.write_text(file.read_text("utf-8").replace("max_new_tokens: 128", "max_new_tokens: 16"), encoding="utf-8")
    return str(folder)
