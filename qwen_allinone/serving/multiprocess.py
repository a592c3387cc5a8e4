"""Metrics of several workers: the folder through which they share their numbers, and a lasting number for each.

A worker's counters lie in files named by its number, not by its process id. The one that replaces it takes the free
number and counts on in the same files: nothing is lost with a killed worker, and nothing piles up with many.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from qwen_allinone.telemetry.metrics import Share

log = logging.getLogger(__name__)

# prometheus-client reads it.
_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_PREFIX = "qaio-metrics-"
_MEMORY = Path("/dev/shm")
# Written through maps: a page that a full disk cannot give kills the worker (SIGBUS), so they are taken in advance.
_RESERVED = {"counter": 128 * 1024, "histogram": 256 * 1024, "gauge_livesum": 64 * 1024, "gauge_liveall": 64 * 1024}

_worker: int | None = None
_held: list[int] = []


def make_folder(parents: Iterable[Path] | None = None) -> None:
    """In the master, once at the start: an empty folder of our own, in memory if possible.

    The root may be read-only. Without a folder each worker can only show its own numbers.
    """
    for parent in parents if parents is not None else (_MEMORY, Path(tempfile.gettempdir())):
        with suppress(OSError):
            _remove_abandoned(parent)
            folder = tempfile.mkdtemp(prefix=_PREFIX, dir=parent)
            # Held by the master and, through the fork, by its workers: what nobody holds is abandoned.
            _held.append(_lock(Path(folder)))
            os.environ[_VARIABLE] = folder
            return
    os.environ.pop(_VARIABLE, None)
    log.warning("no folder for shared metrics can be made: /metrics shows one worker at a time")


def remove_folder() -> None:
    """In the master, at the end."""
    if folder := os.environ.pop(_VARIABLE, None):
        shutil.rmtree(folder, ignore_errors=True)


def free_number(taken: Iterable[int]) -> int:
    """The lowest number, from 1, that no living worker has."""
    used = set(taken)
    return next(number for number in range(1, len(used) + 2) if number not in used)


def become(number: int) -> None:
    """In a worker, right after the fork."""
    global _worker
    _worker = number


def forget(number: int) -> None:
    """In the master: the worker with this number has ended, and what it had running is over."""
    if folder := os.environ.get(_VARIABLE):
        for file in Path(folder).glob(f"gauge_live*_{number}.db"):
            file.unlink(missing_ok=True)


def metrics_share() -> Share | None:
    """Where this worker keeps its numbers; None for a process on its own, or where there is no room for them."""
    folder = os.environ.get(_VARIABLE)
    if _worker is None or not folder:
        return None
    try:
        for kind, size in _RESERVED.items():
            _reserve(Path(folder) / f"{kind}_{_worker}.db", size)
    except OSError as error:
        log.warning("no room for shared metrics (%s): /metrics of worker %d shows only its own", error, _worker)
        return None
    return Share(_worker, folder)


def _reserve(file: Path, size: int) -> None:
    fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, size)
    finally:
        os.close(fd)


def _remove_abandoned(parent: Path) -> None:
    """What masters that were killed left behind."""
    for old in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # somebody holds it, or it is somebody else's
            fd = _lock(old)
            shutil.rmtree(old, ignore_errors=True)
            os.close(fd)


def _lock(folder: Path) -> int:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise
    return fd
