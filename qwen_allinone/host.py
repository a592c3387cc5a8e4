"""What is asked of the host: cores and memory that this process may use, and the C library's heap."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

_CPU_QUOTA_V2 = Path("/sys/fs/cgroup/cpu.max")
_CPU_QUOTA_V1 = Path("/sys/fs/cgroup/cpu")
_MEMORY_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
# mallopt(3) of glibc.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LOADING, _SERVING = 1 << 20, 1 << 25


def compute_threads(asked: int, workers: int) -> int:
    """Threads for one worker: `asked`, or an equal share of the cores available when `asked` is 0."""
    return asked or max(1, int(available_cores()) // workers)


def available_cores() -> float:
    """Cores this process may use: its affinity and cgroup quota, not the machine's count."""
    cores = float(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else float(os.cpu_count() or 1)
    quota = _cpu_quota()
    return min(cores, quota) if quota else cores


def _cpu_quota(v2: Path = _CPU_QUOTA_V2, v1: Path = _CPU_QUOTA_V1) -> float | None:
    """Cores the cgroup grants, None for no limit (kernel documentation: cgroup-v2, cpu.max; cgroup-v1, CFS)."""
    try:
        if v2.exists():
            quota, period = v2.read_text().split()
        else:
            quota, period = ((v1 / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return int(quota) / int(period) if quota not in ("max", "-1") else None
    except (OSError, ValueError):
        return None


def resident_bytes() -> int:
    """Resident memory of this process (proc(5), statm)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def memory_limit(files: Sequence[Path] = _MEMORY_LIMITS) -> int:
    """Bytes this process group may use: the cgroup's limit (v2, then v1) or the machine's memory."""
    limit = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for file in files:
        with suppress(OSError, ValueError):  # no such cgroup version, or "max"
            limit = min(limit, int(file.read_text()))
    return limit


@contextmanager
def heap_returned() -> Iterator[None]:
    """Within, every block of a megabyte is mapped on its own and goes back to the system when freed.

    By itself glibc raises that size to 32 MB as it meets such blocks, and a heap with hundreds of megabytes of holes
    remains. Afterwards steps get their buffers from the heap again: mapping them anew each time costs page faults.
    Does nothing on other C libraries.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        yield
        return
    library.mallopt(_MMAP_THRESHOLD, _LOADING)
    try:
        yield
    finally:
        library.mallopt(_MMAP_THRESHOLD, _SERVING)
        library.mallopt(_TRIM_THRESHOLD, 2 * _SERVING)
        give_back()


def give_back() -> None:
    """Return what the heap keeps for later to the system: tens of megabytes after long prompts. For idle moments."""
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)
