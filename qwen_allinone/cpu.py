"""How much processor this process may use: affinity and the cgroup quota, not the machine's core count."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP_V2 = Path("/sys/fs/cgroup/cpu.max")
_CGROUP_V1 = Path("/sys/fs/cgroup/cpu")


def compute_threads(asked: int, workers: int) -> int:
    """Threads for one worker: `asked`, or an equal share of the cores available when `asked` is 0."""
    return asked or max(1, int(available_cores()) // workers)


def available_cores() -> float:
    """Cores this process may use at once."""
    cores = float(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else float(os.cpu_count() or 1)
    quota = _quota()
    return min(cores, quota) if quota else cores


def _quota(v2: Path = _CGROUP_V2, v1: Path = _CGROUP_V1) -> float | None:
    """Cores the cgroup grants, None for no limit (kernel documentation: cgroup-v2, cpu.max; cgroup-v1, CFS)."""
    try:
        if v2.exists():
            quota, period = v2.read_text().split()
        else:
            quota, period = ((v1 / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return int(quota) / int(period) if quota not in ("max", "-1") else None
    except (OSError, ValueError):
        return None
