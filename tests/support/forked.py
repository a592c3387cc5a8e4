"""Real masters and commands without the seconds that Python takes to import torch for each: they are forked from a
process that has imported it, and what else is not the project's own, before it knows what it will run.

    process = start(("gunicorn", ...), folder, environment, out, err)    # python -m gunicorn ...
    done = run("prompts", "list", folder=..., environment=...)           # python -m qwen_allinone prompts list
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
# Not what reads the environment while it is imported: the hub's client, Prometheus's and OpenTelemetry's.
IMPORTED = (
    "torch", "numpy", "safetensors", "tokenizers", "llguidance", "flask", "flask_openapi", "pydantic", "jinja2", "yaml",
    "redis", "psycopg", "structlog", "cryptography", "psutil", "rich.progress", "gunicorn.app.wsgiapp",
    "gunicorn.workers.gthread",
)  # fmt: skip
_LARGEST = 1 << 20  # bytes of an order


class Forked:
    """What `subprocess.Popen` offers of a process that is not our child. `returncode` is None while it runs."""

    def __init__(self, pid: int, told: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._told = told

    def poll(self) -> int | None:
        return self._ended(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Raises subprocess.TimeoutExpired if it still runs after `timeout` seconds."""
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._told], [], [], timeout)[0]:
            self.returncode = int(self._told.recv(64) or b"-9")
            self._told.close()
        return self.returncode


def start(arguments: Sequence[str], folder: Path, environment: Mapping[str, str], out: int, err: int) -> Forked:
    """`python -m` with `arguments` as if it were started anew, in a session of its own; `out` and `err` are descriptors
    of files."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    order = {"arguments": list(arguments), "folder": str(folder), "environment": dict(environment)}
    with theirs, _lock:
        socket.send_fds(_forker(), [json.dumps(order).encode()], [theirs.fileno(), out, err])
    return Forked(int(ours.recv(64)), ours)


def run(
    *arguments: str, environment: Mapping[str, str], folder: Path = PROJECT, seconds: float = 120.0
) -> subprocess.CompletedProcess[str]:
    """The project's command, to its end. Raises subprocess.TimeoutExpired after `seconds`."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = start(("qwen_allinone", *arguments), folder, environment, out.fileno(), err.fileno())
        try:
            code = process.wait(seconds)
        finally:
            process.kill()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(arguments, code, out.read().decode(), err.read().decode())


_lock = threading.Lock()


@cache
def _forker() -> socket.socket:
    """The process that forks, started with the first order and ended with ours."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("QAIO_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.forked", str(theirs.fileno())],
        cwd=PROJECT, env=environment | {"LC_ALL": "C.UTF-8"}, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
    )  # fmt: skip
    theirs.close()
    atexit.register(process.wait)
    atexit.register(ours.close)  # the last registered is called first
    return ours


def _serve(orders: socket.socket) -> None:
    """In the process that forks. Returns in each forked one, which then is what was ordered."""
    for name in IMPORTED:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        message, files, _, _ = socket.recv_fds(orders, _LARGEST, 3)
        if not message:
            os._exit(0)
        if os.fork() == 0:
            orders.close()
            return _keep(json.loads(message), *files)
        for file in files:
            os.close(file)


def _keep(order: dict[str, Any], told: int, out: int, err: int) -> None:
    """Fork once more: one process becomes what was ordered, this one waits for it and tells how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        os.close(told)
        return _become(order, out, err)
    os.write(told, str(pid).encode())
    _, status = os.waitpid(pid, 0)
    os.write(told, str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _become(order: dict[str, Any], out: int, err: int) -> None:
    os.setsid()
    os.chdir(order["folder"])
    for file, number in ((os.open(os.devnull, os.O_RDONLY), 0), (out, 1), (err, 2)):
        os.dup2(file, number)
    os.closerange(3, 64)
    os.environ.clear()
    os.environ.update(order["environment"])
    module = order["arguments"][0]
    sys.argv, sys.path[0] = order["arguments"], order["folder"]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
