"""How much memory this process uses, and how much it may use."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_LIMIT_FILES = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def resident_bytes() -> int:
    """Resident memory of this process (proc(5), statm)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def memory_limit(files: Sequence[Path] = _LIMIT_FILES) -> int:
    """Bytes this process group may use: the cgroup's limit (v2, then v1) or the machine's memory."""
    limit = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for file in files:
        with suppress(OSError, ValueError):  # no such cgroup version, or "max"
            limit = min(limit, int(file.read_text()))
    return limit
