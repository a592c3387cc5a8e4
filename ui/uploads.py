"""How much of the disk files of visitors take: the page keeps them for an hour, and takes no more than so much."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

# What a file takes of a disk beside its bytes: many small ones are many all the same.
_AROUND_BYTES = 4096


def bytes_in(folder: Path) -> int:
    """What all files below `folder` take together; those that go meanwhile take nothing."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.stat(os.path.join(place, name)).st_size + _AROUND_BYTES
    return total
