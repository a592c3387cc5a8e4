"""The audit log: who did what and when, in a file of its own that several workers write and that rotates by size."""

from __future__ import annotations

import errno
import logging
import os
import time
from contextlib import suppress
from pathlib import Path

from qwen_allinone.errors import SettingsError
from qwen_allinone.files import locked_folder, unwritable
from qwen_allinone.telemetry.formatting import timestamp, to_json
from qwen_allinone.telemetry.line_writer import LineWriter
from qwen_allinone.telemetry.records import RequestRecord
from qwen_allinone.wording import said

log = logging.getLogger(__name__)

_MODE = 0o640
_COMPLAIN_EVERY_S = 60.0
_FULL = (errno.ENOSPC, errno.EDQUOT)


class AuditFile:
    """Whole lines into a file that other processes write and rotate too; one thread of a process at a time."""

    def __init__(self, path: Path, *, max_bytes: int, keep: int) -> None:
        """At `max_bytes` the file becomes `<path>.1`, that one `.2` and so on, up to `keep` of them."""
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._fd: int | None = None

    def append(self, line: bytes) -> None:
        """Write `line` as a whole or not at all; raises OSError when it could not be written."""
        with locked_folder(self._path.parent):
            fd = self._current()
            size = os.fstat(fd).st_size
            if size and size + len(line) > self._max_bytes:
                self._rotate()
                fd, size = self._current(), 0
            _append_whole(fd, line, size)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _current(self) -> int:
        """The file that has the name now; another process may have rotated, an operator may have moved it."""
        if self._fd is not None and not _is_at(self._fd, self._path):
            self.close()
        if self._fd is None:
            self._fd = _open(self._path)
        return self._fd

    def _rotate(self) -> None:
        for number in range(self._keep - 1, 0, -1):
            with suppress(FileNotFoundError):
                os.replace(self._numbered(number), self._numbered(number + 1))
        os.replace(self._path, self._numbered(1))

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


class AuditLog:
    """Audit lines on their way to an AuditFile. A full or slow disk costs lines, which are counted, not answers."""

    def __init__(self, file: AuditFile) -> None:
        self._file = file
        self._lines = LineWriter("audit", self._append)
        self._complained: float | None = None

    @property
    def lost(self) -> int:
        """Lines of this process that could not be written."""
        return self._lines.lost

    def write(self, request: RequestRecord) -> None:
        """Note a finished request."""
        self._lines.put(audit_line(request, time.time()))

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until all is written, for the end of the process; False if that takes longer than `timeout` seconds."""
        return self._lines.flush(timeout)

    def _append(self, line: bytes) -> None:
        try:
            self._file.append(line)
        except OSError as error:
            now = time.monotonic()
            if self._complained is None or now - self._complained >= _COMPLAIN_EVERY_S:
                self._complained = now
                log.error("the audit log cannot be written, lines are lost (%d before this one): %s", self.lost, error)
            raise


def audit_line(request: RequestRecord, now: float) -> bytes:
    """Who, what and when, as one line of JSON. `now` in seconds since the epoch."""
    fields = request.fields()
    told = ("request_id", "caller", "method", "route", "task", "status", "code", "prompt_tokens", "generated_tokens")
    line = {"time": timestamp(now), "address": request.address} | {name: fields[name] for name in told}
    return to_json(line).encode() + b"\n"


def check(path: Path) -> None:
    """See at startup that `path` can be written; a disk that is merely full is no reason not to start.

    Raises:
        SettingsError: a relative path, no such folder, no permission, a folder instead of a file.
    """
    if not path.is_absolute():
        raise SettingsError(said("audit_path_form", path=str(path)))
    try:
        os.close(_open(path))
    except OSError as error:
        if error.errno not in _FULL:
            raise SettingsError(said("audit_unwritable", path=str(path), strerror=unwritable(path, error))) from None


def _open(path: Path) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
    try:
        fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, _MODE)
    except FileExistsError:
        return os.open(path, flags)
    os.fchmod(fd, _MODE)  # whatever the umask; the mode of a file that was there is the operator's
    return fd


def _is_at(fd: int, path: Path) -> bool:
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(fd), there)


def _append_whole(fd: int, line: bytes, size: int) -> None:
    try:
        if os.write(fd, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError:
        with suppress(OSError):  # no half lines
            os.ftruncate(fd, size)
        raise
