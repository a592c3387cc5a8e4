"""A hold on a session: until when, and by whom, so that nobody waits for a process that is gone."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Lease:
    """`token` names the holder, this process and one of its requests; no lease lasts longer than `longest_s`."""

    token: str
    seconds: float
    longest_s: float

    @classmethod
    def take(cls, seconds: float, longest_s: float) -> Lease:
        return cls(f"{_place()}:{os.getpid()}:{secrets.token_hex(8)}", seconds, longest_s)


def is_dead(token: str) -> bool:
    """Whether the process that holds `token` ran here and runs no more. False where that cannot be known."""
    place, _, rest = token.partition(":")
    if not place or place != _place():
        return False
    pid = rest.partition(":")[0]
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, OverflowError):
        return False
    return _has_ended(pid)


def _has_ended(pid: str) -> bool:
    """Whether only its entry is left, until its parent has looked at it."""
    try:
        # After the name, which is in brackets and may hold anything: the state.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1] in ("Z", "X")
    except OSError:
        return False


def _place() -> str:
    """Where process ids mean the same processes: this boot of this machine, this namespace. Empty if unknown."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    return ""
