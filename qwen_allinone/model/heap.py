"""Keeps the C library's heap from holding on to memory that loading and long prompts took for a moment."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

# mallopt(3) of glibc.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LOADING, _SERVING = 1 << 20, 1 << 25


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
