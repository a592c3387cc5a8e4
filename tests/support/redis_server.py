"""A real Redis or Valkey on a free port of loopback, to be frozen, killed and started again by a test."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from redis import Redis, RedisError

BINARY = shutil.which("valkey-server") or shutil.which("redis-server")
WHY_NOT = "neither valkey-server nor redis-server is installed: run tests/install_services.sh as root"


class RedisServer:
    """One server, nothing on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        """Start it, empty, on the port it always has; returns when it answers."""
        assert BINARY is not None
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [BINARY, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        ends = time.monotonic() + 30
        while not self._answers():
            assert time.monotonic() < ends, (self._folder / "redis.log").read_text()
            time.sleep(0.05)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(10)

    def freeze(self) -> None:
        """It keeps its connections, takes new ones, and answers nobody."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def set_read_only(self, read_only: bool) -> None:
        """What a failover leaves behind: a replica, which takes no writes."""
        self.execute("REPLICAOF", *(("127.0.0.1", "1") if read_only else ("NO", "ONE")))

    def execute(self, *command: str, password: str | None = None) -> object:
        with Redis(port=self.port, password=password) as client:
            return client.execute_command(*command)

    def ask_for_password(self, asked: bool) -> None:
        """As when an operator changes it; connections that were let in before are closed."""
        if asked:
            self.execute("CONFIG", "SET", "requirepass", "x")
            self.execute("CLIENT", "KILL", "TYPE", "normal", password="x")
        else:
            self.execute("CONFIG", "SET", "requirepass", "", password="x")

    def fill_memory(self, full: bool) -> None:
        self.execute("CONFIG", "SET", "maxmemory", "1" if full else "0")

    def end(self) -> None:
        if self._process.poll() is None:
            self.thaw()
            self.kill()

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self._folder / "redis.log").read_text()
        try:
            with Redis(port=self.port, socket_timeout=1) as client:
                return bool(client.ping())
        except RedisError:
            return False
