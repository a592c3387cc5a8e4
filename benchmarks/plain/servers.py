"""Starts the service and the plain app under Gunicorn on loopback, and ends them by process id."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
_START_S = 900.0  # a full-size model on a slow disk
_STOP_S = 30.0
_LOG_LINES = 15


@dataclass(frozen=True)
class Server:
    """A running server: its name in the figures, where it listens, its route for a label alone."""

    name: str
    url: str
    label_path: str


@contextmanager
def service(model: Path, weights: str, home: Path) -> Iterator[Server]:
    """Ours, with its own settings but for one worker and no deadline that a slow machine could meet."""
    port = _free_port()
    given = {
        "QAIO_MODEL": str(model.resolve()),
        "QAIO_WEIGHTS": weights,
        "QAIO_WORKERS": "1",
        "QAIO_HOST": "127.0.0.1",
        "QAIO_PORT": str(port),
        "QAIO_DEADLINE_S": "3600",
        "QAIO_CACHE_MB": "0",
    }
    command = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py", "app:app"]
    server = Server(weights, f"http://127.0.0.1:{port}", "/v1/tasks/sentiment")
    with _running(server, command, given, home, lambda _: _is_ready(weights, port)):
        yield server


@contextmanager
def plain(model: Path, workers: int, home: Path, python: str) -> Iterator[Server]:
    """The plain app, each of its answers as long as its limit."""
    port = _free_port()
    given = {"PLAIN_MODEL": str(model.resolve()), "PLAIN_FIXED": "1"}
    # An empty module as configuration, or Gunicorn takes the service's gunicorn.conf.py. The default timeout would kill
    # workers that generate for longer than 30 s.
    command = [python, "-m", "gunicorn", "-c", "python:benchmarks.plain", "-w", str(workers), "--timeout", "0"]
    command += ["-b", f"127.0.0.1:{port}"]
    server = Server("plain", f"http://127.0.0.1:{port}", "/sentiment")
    loaded = "plain: ready"
    with _running(
        server, [*command, "benchmarks.plain.app:app"], given, home, lambda log: log.count(loaded) == workers
    ):
        yield server


@contextmanager
def _running(
    server: Server, command: list[str], given: dict[str, str], home: Path, ready: Callable[[str], bool]
) -> Iterator[None]:
    """Run `command` until the block ends; ends the program with its last lines if it does not become ready."""
    log_file = home / f"{server.name}-{server.url.rpartition(':')[2]}.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=PROJECT,
            env=_environment(given, home),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        began = time.monotonic()
        while not ready(said := log_file.read_text(encoding="utf-8", errors="replace")):
            if process.poll() is not None or time.monotonic() - began > _START_S:
                last = "\n".join(said.splitlines()[-_LOG_LINES:])
                sys.exit(f"{server.name} did not start; it said:\n{last}")
            time.sleep(0.2)
        yield
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the master to stop; kill its process group if it, or what it started, is still there."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _environment(given: dict[str, str], home: Path) -> dict[str, str]:
    """This environment without anybody's settings of either server; nothing is asked of a hub."""
    others = ("QAIO_", "PLAIN_", "GUNICORN")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    # Gunicorn puts its control socket there.
    ours = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "XDG_RUNTIME_DIR": str(home)}
    return inherited | ours | given


def _is_ready(name: str, port: int) -> bool:
    """Whether our service is ready; ends the program with the reason if it says that it never will be."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        state = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError):
        return False
    finally:
        connection.close()
    if problem := state.get("problem"):
        sys.exit(f"{name} did not start: {problem}")
    return response.status == 200


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
