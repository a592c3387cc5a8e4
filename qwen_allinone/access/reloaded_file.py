"""A file that is read again whenever it changes, so that keys come and go without a restart."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from qwen_allinone.errors import AccessFileError
from qwen_allinone.wording import said

log = logging.getLogger(__name__)

T = TypeVar("T")


class ReloadedFile(Generic[T]):
    """What `parse` makes of a file, kept up to date; `value` costs one `stat` while the file stays as it is.

    A file that vanishes or breaks leaves what was read before in force, and is told of in the log once. Before the
    first good reading the value is `nothing`.
    """

    def __init__(self, path: Path, parse: Callable[[bytes], T], nothing: T) -> None:
        self._path = path
        self._parse = parse
        self._value = nothing
        self._seen: tuple[int, ...] | None = None
        self._complaint = ""
        self._lock = threading.Lock()

    def check(self) -> None:
        """Read and parse without keeping anything.

        Raises:
            AccessFileError: the file cannot be read, or `parse` does not take it.
        """
        self._read()

    @property
    def value(self) -> T:
        """What the file says, or said when it last could be read."""
        stamp = self._stamp()
        if stamp is None or stamp != self._seen:
            with self._lock:
                self._refresh(stamp)
        return self._value

    def _refresh(self, stamp: tuple[int, ...] | None) -> None:
        try:
            self._value = self._read()
        except AccessFileError as error:
            if str(error) != self._complaint:
                log.error("%s; what was read before stays in force", error)
                self._complaint = str(error)
            if not isinstance(error.__cause__, OSError):
                self._seen = stamp  # broken until it changes; an OSError may pass by itself
            return
        # Taken before reading: a change in between is seen at the next call.
        self._seen = stamp
        if self._complaint:
            log.info("%s: read again", self._path)
            self._complaint = ""

    def _read(self) -> T:
        try:
            raw = self._path.read_bytes()
        except OSError as error:
            raise AccessFileError(said("access_file_unreadable", path=self._path, strerror=error.strerror)) from error
        try:
            return self._parse(raw)
        except AccessFileError as error:
            raise AccessFileError(said("of_file", path=self._path, error=error)) from None

    def _stamp(self) -> tuple[int, ...] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        # Of two writes within one tick of the clock, size and inode tell; the command line always makes a new inode.
        return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size
