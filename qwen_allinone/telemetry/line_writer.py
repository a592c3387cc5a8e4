"""Lines on their way out: a bounded queue and one thread that writes, so that no request waits for a disk or a pipe."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable


class LineWriter:
    """Takes lines from any thread and writes them in order, in a thread of its own. What cannot be written is counted.

    Works across a fork: the child begins with an empty queue, what was queued before is the parent's to write.
    """

    def __init__(self, name: str, write: Callable[[bytes], None], *, most_bytes: int = 4 * 1024 * 1024) -> None:
        """`write` may block and may raise OSError; at most `most_bytes` of lines wait for it."""
        self._name = name
        self._write = write
        self._most_bytes = most_bytes
        self._begin()
        begin = weakref.WeakMethod(self._begin)
        os.register_at_fork(after_in_child=lambda: _call(begin))

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._bytes = 0  # waiting, the line in hand included
        self._lost = 0
        self._thread: threading.Thread | None = None

    @property
    def lost(self) -> int:
        """Lines that were never written, so far."""
        return self._lost

    def put(self, line: bytes) -> None:
        """Queue `line`, or count it as lost when the queue is full. Never blocks for long, never raises."""
        with self._changed:
            if self._bytes + len(line) > self._most_bytes or not self._running():
                self._lost += 1
                return
            self._lines.append(line)
            self._bytes += len(line)
            self._changed.notify_all()

    def count_lost(self) -> None:
        """Count a line that could not even be made."""
        with self._changed:
            self._lost += 1

    def flush(self, timeout: float = 1.0) -> bool:
        """Wait until all is written; False if that takes longer than `timeout` seconds."""
        ends = time.monotonic() + timeout
        with self._changed:
            return self._changed.wait_for(lambda: not self._bytes, max(0.0, ends - time.monotonic()))

    def _running(self) -> bool:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name=f"{self._name} lines", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # no thread to be had: the process ends, or the system is at its limit
                self._thread = None
        return self._thread is not None

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._lines))
                line = self._lines.popleft()
            lost = 0
            try:
                self._write(line)
            except Exception:  # mostly OSError; whatever it is, the thread must go on
                lost = 1
            with self._changed:
                self._lost += lost
                self._bytes -= len(line)
                self._changed.notify_all()


def _call(method: weakref.WeakMethod[Callable[[], None]]) -> None:
    if bound := method():
        bound()
