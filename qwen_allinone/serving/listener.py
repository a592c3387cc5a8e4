"""The end of a listening socket. Closed plainly, it resets whoever the kernel has let in and nobody has accepted."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

# A connection to ourselves stands within this time, or its place in the queue is taken.
_CONNECT_MS = 50
_TRIES = 20


def close_listener(listener: socket.socket, accept_waiting: Callable[[], object]) -> None:
    """Close a non-blocking TCP `listener` so that each client is either accepted or refused, never reset.

    Between the last accept and the close somebody may always come in. So the kernel's queue is cut to one place and
    that place taken by a connection of our own: from then on it drops a client's first packet, and when the packet
    comes again, a second later, nobody listens. `accept_waiting` takes all that wait and is called as often as the
    place is taken by somebody else. A socket that other processes hold too is just closed: they go on accepting.
    """
    accept_waiting()
    plug = None
    if listener.family in (socket.AF_INET, socket.AF_INET6) and not _held_by_others(listener):
        for _ in range(_TRIES):
            plug = _plug(listener)
            if plug is not None:
                break
            accept_waiting()
    listener.close()
    if plug is not None:
        plug.close()


def _plug(listener: socket.socket) -> socket.socket | None:
    """A connection of ours in the only place of the queue of `listener`; None if that is taken."""
    try:
        listener.listen(0)  # Linux keeps one more than that
        plug = socket.socket(listener.family, socket.SOCK_STREAM)
    except OSError:
        return None
    plug.setblocking(False)
    plug.connect_ex(listener.getsockname())
    poller = select.poll()
    poller.register(plug, select.POLLOUT)
    if poller.poll(_CONNECT_MS) and not plug.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        return plug
    plug.close()
    return None


def _held_by_others(listener: socket.socket) -> bool:
    """Whether the master or another of its workers has `listener` open; True where that cannot be seen."""
    link = f"socket:[{os.fstat(listener.fileno()).st_ino}]"
    parent = os.getppid()
    try:
        siblings = Path(f"/proc/{parent}/task/{parent}/children").read_text("ascii").split()
    except OSError:
        return True
    return any(_holds(pid, link) for pid in (str(parent), *siblings) if int(pid) != os.getpid())


def _holds(pid: str, link: str) -> bool:
    with suppress(OSError):  # it has ended
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                if os.readlink(entry.path) == link:
                    return True
    return False
