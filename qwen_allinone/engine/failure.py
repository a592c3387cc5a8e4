"""What becomes of the requests whose step raised."""

from __future__ import annotations

from qwen_allinone.engine.scheduler import Scheduler
from qwen_allinone.errors import EngineFailed, OutOfMemory


def fail_step(scheduler: Scheduler, error: Exception) -> int:
    """End the running requests of a step that raised; returns how many there were."""
    if not is_out_of_memory(error):
        return scheduler.fail_running(EngineFailed())
    lost = scheduler.fail_running(OutOfMemory())
    scheduler.forget_idle()
    return lost


def is_out_of_memory(error: Exception) -> bool:
    """torch has no class of its own for the CPU's memory."""
    told = ("not enough memory", "can't allocate memory", "DefaultCPUAllocator")
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(t in str(error) for t in told))
