"""Files that others read or write at the same time: replaced as a whole, and locked by their folder."""

from __future__ import annotations

import errno
import fcntl
import os
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from qwen_allinone.wording import said


def replace_file(path: Path, content: bytes, *, mode: int | None = None) -> None:
    """As `replaced_file`, with all of its content at once."""
    with replaced_file(path, mode=mode) as file:
        file.write(content)


@contextmanager
def replaced_file(path: Path, *, mode: int | None = None) -> Iterator[BinaryIO]:
    """Write to what is yielded: readers see the old file or the whole new one. `mode` None: that of any new file.

    A file that is there keeps its owner: root may change one of the service's user. Raises OSError.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # of mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fchmod(descriptor, 0o666 & ~_umask() if mode is None else mode)
            if path.exists() and (owner := _owner(path.stat())) != _owner(os.fstat(descriptor)):
                os.fchown(descriptor, *owner)  # which systemd's unit forbids, even to whom it is already
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def unwritable(path: Path, error: OSError) -> str:
    """Why a file cannot be written: what the system says, or how to make the folder that is not there."""
    if error.errno == errno.ENOENT and not path.parent.exists():
        folder = str(path.parent)
        return said("no_folder", folder=folder, command=f"mkdir -p {shlex.quote(folder)}")
    return error.strerror or str(error)


@contextmanager
def locked_folder(folder: Path) -> Iterator[int]:
    """Hold the folder's lock: what lies in it is renamed or replaced, and a lock file would be litter.

    Yields the folder's descriptor; raises OSError.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)  # and with it the lock


def _owner(status: os.stat_result) -> tuple[int, int]:
    return status.st_uid, status.st_gid


def _umask() -> int:
    """The process's own, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
