"""Events on their way into the outbox: a file of each process, to which a request adds a line without waiting.

A line is in the file when `put` returns, so kill -9 does not take it; only the machine itself may, for a moment. The
outbox, which may be locked or full, is another thread's business. What a dead process left is taken up by the others.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_MOST_BYTES = 16_000_000
_MOST_HELD = 1000
_END = ".events"


class Spool:
    """The files of this process, in a folder that it shares with others. Thread-safe."""

    def __init__(self, folder: Path, *, most_bytes: int = _MOST_BYTES) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._path = folder
        self._closed: list[tuple[Path, int]] = []  # files that are full of what has to be taken in
        self._held: deque[bytes] = deque()  # what no file took, on a full disk
        self._bytes = 0

    def put(self, line: bytes) -> bool:
        """Keep a line, which ends with a line end; False: there is no room for it, and it is lost."""
        with self._lock:
            if self._bytes + len(line) > self._most_bytes:
                return False
            try:
                self._append(line)
            except OSError:
                if len(self._held) >= _MOST_HELD:
                    return False
                self._held.append(line)
            self._bytes += len(line)
            return True

    @contextmanager
    def taken(self) -> Iterator[list[bytes]]:
        """All lines of this process so far; they are gone when the context ends well."""
        with self._lock:
            if self._fd is not None:
                self._closed.append((self._path, self._fd))
                self._fd = None
            closed, held = list(self._closed), list(self._held)
        lines = [line for _, fd in closed for line in _lines(fd)] + held
        yield lines
        with self._lock:
            for path, fd in closed:
                _end(path, fd)
                self._closed.remove((path, fd))
            for _ in held:
                self._held.popleft()
            self._bytes -= sum(map(len, lines))

    @contextmanager
    def left_by_others(self) -> Iterator[list[bytes]]:
        """All lines of processes that are gone; likewise."""
        found: list[tuple[Path, int]] = []
        with self._lock:
            ours = {self._path, *(path for path, _ in self._closed)}
        try:
            for path in sorted(self._folder.glob(f"*{_END}")):
                if path not in ours and (fd := _hold(path)) is not None:
                    found.append((path, fd))
            yield [line for _, fd in found for line in _lines(fd)]
        except BaseException:
            for _, fd in found:
                os.close(fd)
            raise
        for path, fd in found:
            _end(path, fd)

    def _append(self, line: bytes) -> None:
        if self._fd is None:
            self._path, self._fd = self._new_file()
        size = os.fstat(self._fd).st_size
        try:
            if os.write(self._fd, line) < len(line):
                raise OSError("no room")
        except OSError:
            with suppress(OSError):  # no half lines
                os.ftruncate(self._fd, size)
            raise

    def _new_file(self) -> tuple[Path, int]:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        while True:
            path = self._folder / f"{os.getpid()}-{secrets.token_hex(6)}{_END}"
            fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            if _is_held(fd, path):
                return path, fd
            os.close(fd)  # between the two calls another took it for one that was left


def _hold(path: Path) -> int | None:
    """Open a file that its process has left; None: it is at work, or another took it."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    if _is_held(fd, path):
        return fd
    os.close(fd)
    return None


def _is_held(fd: int, path: Path) -> bool:
    """Whether the file is ours alone from now on, and still there."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except OSError:
        return False


def _lines(fd: int) -> list[bytes]:
    """The whole lines; half of one at the end is of a process that was killed while it wrote."""
    content = os.pread(fd, os.fstat(fd).st_size, 0)
    return [line for line in content.splitlines(keepends=True) if line.endswith(b"\n")]


def _end(path: Path, fd: int) -> None:
    with suppress(OSError):
        path.unlink()
    os.close(fd)
