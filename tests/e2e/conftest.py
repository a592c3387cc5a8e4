"""Real Gunicorn servers on loopback, each in a process group of its own, and a plain HTTP client."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from tests.support import forked
from tests.support.nginx import Proxy, proxy

PROJECT = Path(__file__).resolve().parents[2]
GUNICORN = (sys.executable, "-m", "gunicorn", "-c", str(PROJECT / "gunicorn.conf.py"))
LABELS = ("正面", "负面")
# A busy machine must not fail a test; a hang must.
PATIENCE_S = 60.0
Process = subprocess.Popen[bytes] | forked.Forked


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    data: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.data)


@dataclass(frozen=True)
class Echo:
    """Gunicorn with tests/support/echo_app.py under the service's own gunicorn.conf.py, but for the worker class."""

    service: Service
    notes: Path

    def seen(self, path: str | None = None) -> list[dict[str, Any]]:
        """What arrived, oldest first; only for `path` if one is given."""
        lines = self.notes.read_text(encoding="utf-8").splitlines() if self.notes.exists() else []
        return [entry for entry in map(json.loads, lines) if path in (None, entry.get("path"))]


@dataclass
class Service:
    """A running master. `log` is all that it and its workers wrote."""

    process: Process
    port: int
    log_file: Path

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    @property
    def workers(self) -> list[int]:
        """Process ids of the workers that are alive, oldest first."""
        booted = [int(pid) for pid in re.findall(r"Booting worker with pid: (\d+)", self.log)]
        return [pid for pid in booted if alive(pid)]

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        """One request on a connection of its own; raises OSError or HTTPException when there is no answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, {"Connection": "close"} | named)
            response = connection.getresponse()
            return Reply(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def chat(self, text: str) -> Reply:
        body = json.dumps({"text": text}, ensure_ascii=False).encode()
        return self.ask("POST", "/chat", body, Content_Type="application/json")

    def chat_all(self, texts: list[str]) -> list[Reply]:
        """All texts at once."""
        with ThreadPoolExecutor(len(texts)) as pool:
            return list(pool.map(self.chat, texts))

    def answers(self, path: str, status: int) -> bool:
        try:
            return self.ask("GET", path).status == status
        except (OSError, http.client.HTTPException):
            return False

    def raw(self, *parts: bytes, seconds: float = 20.0) -> bytes:
        """Send bytes as they are and return what comes back until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as connection:
            for part in parts:
                connection.sendall(part)
            received = b""
            while block := connection.recv(65536):
                received += block
            return received

    def end(self) -> None:
        """End the master and whatever it started."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


StartService = Callable[..., Service]


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and waits for its parent does not."""
    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return shown.stdout.strip()[:1] not in ("", "Z")


def until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE_S) -> float:
    """Wait for `condition`; returns the seconds it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"{what}: not within {seconds:g} s"
        time.sleep(0.05)
    return time.monotonic() - began


def assert_is_chat(reply: Reply) -> None:
    assert reply.status == 200, reply.data
    assert list(reply.json) == ["sentiment", "response"]
    assert reply.json["sentiment"] in LABELS and isinstance(reply.json["response"], str)


def environment(port: int, home: Path, given: dict[str, str]) -> dict[str, str]:
    """The machine's environment without anybody's QAIO_* and HF_*, and with a hub that must not be asked."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("QAIO_", "HF_", "GUNICORN", "HUGGINGFACE"))}
    ours = {
        "QAIO_HOST": "127.0.0.1",
        "QAIO_PORT": str(port),
        "QAIO_MODEL": "demo",
        "QAIO_THREADS": "1",
        "QAIO_PROMPTS_KEPT": str(home / f"prompts-{port}"),
        "HF_HOME": str(home / "hub"),
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "NO_PROXY": "*",
        "PYTHONPATH": str(PROJECT),
        "LANG": "C.UTF-8",
        "LC_ALL": "",
        "LC_MESSAGES": "",
    }
    return inherited | ours | given


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def services(home: Path) -> Iterator[StartService]:
    started: list[Service] = []

    def start(
        *, command: tuple[str, ...] = GUNICORN, ready: bool = True, folder: Path = PROJECT, **given: str
    ) -> Service:
        port = free_port()
        log_file = home / f"log-{port}.txt"
        with log_file.open("wb") as log:
            process = begin(command, folder, environment(port, home, given), log)
        service = Service(process, port, log_file)
        started.append(service)
        if ready:
            wait_ready(service, int(given.get("QAIO_WORKERS", "1")))
        return service

    try:
        yield start
    finally:
        for service in started:
            service.end()


def begin(command: tuple[str, ...], folder: Path, given: dict[str, str], log: BinaryIO) -> Process:
    """In a session of its own. What runs the project's files is forked, which spares it a start of Python and torch; how
    it starts from nothing is for test_package and for `make demo` in test_starting."""
    if command[:2] == GUNICORN[:2] and given["PYTHONPATH"] == str(PROJECT):
        return forked.start(command[2:], folder, given, log.fileno(), log.fileno())
    return subprocess.Popen(
        command, cwd=folder, env=given, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
    )


def wait_ready(service: Service, workers: int = 1) -> None:
    """Until every worker has loaded its model; a request could meet either of them."""

    def ready() -> bool:
        assert service.process.poll() is None, service.log
        return len(re.findall(r"ready: model", service.log)) >= workers and service.answers("/readyz", 200)

    until(ready, "the service is ready")


@pytest.fixture(scope="session")
def service(demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Two workers that all tests share; what a test breaks it must see mended before it ends."""
    with services(tmp_path_factory.mktemp("service")) as start:
        yield start(QAIO_WORKERS="2")


@pytest.fixture
def start_service(demo_checkpoint: Path, tmp_path: Path) -> Iterator[StartService]:
    """Starts services of a test's own."""
    with services(tmp_path) as start:
        yield start


@pytest.fixture
def model_folder(demo_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the demo's checkpoint, to be broken; with a name that no header could carry as it is."""
    return Path(shutil.copytree(demo_checkpoint, tmp_path / "模型"))


StartEcho = Callable[[], Echo]


@contextmanager
def echoes(home: Path) -> Iterator[StartEcho]:
    with services(home) as start:

        def start_echo() -> Echo:
            notes = home / f"seen-{free_port()}.jsonl"
            # Not the service's worker class, which wants an engine.
            command = (*GUNICORN, "-k", "tests.support.echo_app.EchoWorker", "tests.support.echo_app:app")
            trusting = {"QAIO_TRUSTED_PROXIES": "127.0.0.1"}  # nginx, whose word counts for the scheme
            running = start(command=command, ready=False, ECHO_LOG=str(notes), QAIO_WORKERS="2", **trusting)
            until(lambda: running.answers("/livez", 200), "the echo answers")
            return Echo(running, notes)

        yield start_echo


@pytest.fixture(scope="session")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Echo]:
    """One that tests share; each looks for a path of its own."""
    with echoes(tmp_path_factory.mktemp("echo")) as start:
        yield start()


@pytest.fixture
def start_echo(tmp_path: Path) -> Iterator[StartEcho]:
    """Starts echoes of a test's own."""
    with echoes(tmp_path) as start:
        yield start


@pytest.fixture(scope="session")
def front(echo: Echo) -> Iterator[Proxy]:
    """nginx before the shared echo, with limits by address that no other test comes near."""
    with proxy(
        [echo.service.port], PROXY_REQUESTS_PER_S="1000", PROXY_BURST="1000", PROXY_CONNECTIONS="1000"
    ) as running:
        yield running
