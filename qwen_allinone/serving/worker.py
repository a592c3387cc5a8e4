"""Gunicorn's threaded worker, with an engine behind it: whom it accepts, how it ends.

Where it differs from `gthread` (27.0), and why:
- A connection takes a thread when its first byte has come, not before, and its end is waited for by the main loop's
  poller (early_answers.py): neither a silent client nor one that does not close can hold up the others.
- A worker that is busy or still loading waits a moment before it accepts, so that one which is free takes the
  connection; if none does, it accepts and answers 503 itself. Nothing waits unseen in the kernel's queue.
- On SIGTERM it goes on accepting, to say 503, until the last admitted request is answered. Then it ends at once.
- After a reload it takes nobody new and answers those who are here, for others serve; see succession.py.
- When its engine hangs or the master is gone, it ends within seconds, whatever its threads do.
"""

from __future__ import annotations

import atexit
import errno
import logging
import mmap
import os
import select
import selectors
import signal
import sys
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any

from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, TConn, ThreadWorker

from qwen_allinone.errors import Draining, EngineStuck
from qwen_allinone.serving.early_answers import Lingering, closing_if_unread
from qwen_allinone.serving.listener import close_listener
from qwen_allinone.serving.refusals import RefusesInJson

if TYPE_CHECKING:  # read with the configuration, of which mistakes are told before torch is imported
    from qwen_allinone.engine import Engine

log = logging.getLogger(__name__)

# How often a worker looks for connections while its slots are busy, and while it would refuse. One that is pending at
# two looks in a row is wanted by no other worker.
_BUSY_PAUSE_S = 0.01
_FULL_PAUSE_S = 0.03
# Connections taken at once by a worker that paused.
_MOST_AT_ONCE = 64
# For admitted requests when the master is gone; for answers to be sent when nothing is computed any more.
_ORPHAN_S = 1.5
_LAST_ANSWERS_S = 1.0
# How soon it is seen that the model is there.
_LOADING_TURN_S = 0.1
# For the interpreter to end by itself.
_EXIT_S = 1.0
# Between two tries of a worker that cannot start.
_BOOT_RETRY_S = 5.0
_NO_MORE_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_NOBODY_THERE = (errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNABORTED, errno.EINTR)


class EngineWorker(RefusesInJson, ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """Serves one app and its engine (`app.extensions["engine"]`)."""

    wsgi: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._shared = mmap.mmap(
            -1, 3
        )  # of master and worker: is it ready, is it to retire, do others serve until it is ready
        self._quit = False
        self._ended = False
        self._listening = select.poll()
        self._looked_at = 0.0
        self._somebody_waited = False
        self._no_files_until = 0.0

    @property
    def is_ready(self) -> bool:
        """Whether its model has been loaded. The master asks too."""
        return self._shared[0] != 0

    @property
    def retires(self) -> bool:
        """Whether others serve and this one is to leave: the master says so before it ends it."""
        return self._shared[1] != 0

    @retires.setter
    def retires(self, wanted: bool) -> None:
        self._shared[1] = wanted

    @property
    def is_heir(self) -> bool:
        """Whether it takes over from others, who serve until it is ready: so it takes nobody before."""
        return self._shared[2] != 0

    @is_heir.setter
    def is_heir(self, wanted: bool) -> None:
        self._shared[2] = wanted

    def init_process(self) -> None:
        """Boot and serve.

        The master ends when a worker cannot boot. At the first start that is right: nothing else would be said. Later
        it would take the healthy workers along because of, say, a prompt file in the middle of an edit.
        """
        atexit.register(self._skip_teardown)  # before the app's own, so that it is called after them
        try:
            super().init_process()
        except Exception:
            if self.booted or self.age <= self.cfg.workers:
                raise
            log.exception("worker cannot start; the next try is in %g s", _BOOT_RETRY_S)
            ends = time.monotonic() + _BOOT_RETRY_S
            while self.alive and time.monotonic() < ends and self.is_parent_alive():
                self.notify()
                time.sleep(0.2)
            sys.exit(1)

    def load_wsgi(self) -> None:
        """Load the app; one without an engine fails here, where the master says why, and not at every turn."""
        super().load_wsgi()
        if "engine" not in getattr(self.wsgi, "extensions", {}):
            raise RuntimeError("this worker class serves qwen-allinone only; for another app give Gunicorn -k gthread")
        self._app, self.wsgi = self.wsgi, closing_if_unread(self.wsgi)

    def run(self) -> None:
        """The main loop, then an orderly end."""
        self._lingering = Lingering(self.poller, self._close)
        self.poller.register(self.method_queue.fileno(), selectors.EVENT_READ, self.method_queue.run_callbacks)
        for listener in self.sockets:
            listener.setblocking(False)
            self._listening.register(listener, select.POLLIN)
        parent = True
        while self.alive and parent and not self._engine.broken:
            self._turn(accept=True)
            parent = self.is_parent_alive()
        if self._engine.broken:
            self._break()
        grace_s = self.cfg.graceful_timeout - 2
        if parent and self.retires:
            self._retire(grace_s)
            grace_s = 0.0
        self._drain(grace_s if parent else _ORPHAN_S)
        self._end()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM: from here on nobody is admitted, but for those whose connection is here already after a reload."""
        if self.booted and not self.retires:
            self._engine.drain()
        super().handle_exit(sig, frame)

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        """SIGINT, SIGQUIT: end what is running with an error, and go."""
        if not self.booted:
            super().handle_quit(sig, frame)
        self._quit = True
        self.handle_exit(sig, frame)

    def accept(self, listener: Any) -> bool:
        """Take one connection, if there is one, and wait for its first byte."""
        if self._accepting and self._pause_s():
            self.set_accept_enabled(False)  # the engine has filled up since: others first
            return False
        try:
            client, address = listener.accept()
        except OSError as error:
            if error.errno in _NO_MORE_FILES:
                log.error("cannot accept connections: %s", error)
                self.set_accept_enabled(False)
                self._no_files_until = time.monotonic() + 1.0
            elif error.errno not in _NOBODY_THERE:
                raise
            return False
        self.nr_conns += 1
        connection = TConn(self.cfg, client, address, listener.getsockname())
        connection.timeout = time.monotonic() + self.cfg.keepalive
        self.pending_conns.append(connection)
        self.poller.register(client, selectors.EVENT_READ, partial(self.on_pending_socket_readable, connection))
        return True

    def finish_request(self, conn: TConn, fs: Future[Any]) -> None:
        """After an answer: keep the connection, or let the client take the answer in before it ends."""
        if fs.cancelled() or fs.exception() or fs.result():
            super().finish_request(conn, fs)
        else:
            self._lingering.add(conn)

    @property
    def _engine(self) -> Engine[Any]:
        engine: Engine[Any] = self._app.extensions["engine"]
        return engine

    def _turn(self, *, accept: bool) -> None:
        """Once around the loop: heartbeat, new connections, events, timeouts."""
        self.notify()
        if not self.is_ready:
            self._tell_if_ready()
        pause = self._pause_s()
        accept = accept and self.nr_conns < self.worker_connections and time.monotonic() >= self._no_files_until
        accept = accept and (self.is_ready or not self.is_heir)
        self.set_accept_enabled(accept and not pause)
        if accept and pause:
            self._accept_late(pause)
        else:
            self._somebody_waited = False
        idle = 1.0 if self.is_ready else _LOADING_TURN_S
        self.wait_for_and_dispatch_events(timeout=pause or (idle if self._accepting else _FULL_PAUSE_S))
        self.murder_keepalived()
        self.murder_pending()
        self._lingering.end_overdue()

    def _tell_if_ready(self) -> None:
        if self._engine.status == "ready":
            self._shared[0] = True
            with suppress(OSError):  # the master is gone, and somebody else has its number
                os.kill(self.ppid, signal.SIGCHLD)  # which has it look around

    def _pause_s(self) -> float:
        """How long connections are left to other workers; 0: whoever is first takes them."""
        if not self.alive:
            return _FULL_PAUSE_S
        if self.cfg.workers == 1:
            return 0.0
        if self._engine.room == 0:
            return _FULL_PAUSE_S
        return 0.0 if self._engine.has_free_slot else _BUSY_PAUSE_S

    def _accept_late(self, pause: float) -> None:
        """Take what no other worker has taken, though there was time."""
        now = time.monotonic()
        if now < self._looked_at + pause:
            return
        self._looked_at = now
        waiting = bool(self._listening.poll(0))
        if waiting and self._somebody_waited:
            self._accept_waiting()
        self._somebody_waited = waiting

    def _accept_waiting(self) -> bool:
        """Accept as many as there is room for; if there is none, a bunch of them, to be refused."""
        most = min(self._engine.room, _MOST_AT_ONCE) or _MOST_AT_ONCE
        taken = 0
        while taken < most and any([self.accept(listener) for listener in self.sockets]):
            taken += 1
        return taken > 0

    def _accept_all(self) -> None:
        while self._accept_waiting():
            pass

    def _leave_to_others(self) -> None:
        pass

    def _close(self, conn: TConn) -> None:
        self.nr_conns -= 1
        conn.close()

    def _retire(self, grace_s: float) -> None:
        """Answer all that comes on connections that are here, and leave new ones to the others."""
        self.alive = False  # answers say `Connection: close`
        self._cap_keepalive(time.monotonic() + STOP_KEEPALIVE_LINGER)
        ends = time.monotonic() + grace_s
        while self.nr_conns > 0 and time.monotonic() < ends and not self._quit and self.is_parent_alive():
            self._turn(accept=False)

    def _drain(self, grace_s: float) -> None:
        """Let admitted requests end, and refuse whoever still comes; then send the last answers."""
        self.alive = False  # answers say `Connection: close`
        self._engine.drain()
        self._cap_keepalive(time.monotonic() + STOP_KEEPALIVE_LINGER)
        ends = time.monotonic() + grace_s
        orphan = grace_s <= _ORPHAN_S
        while self._engine.admitted and time.monotonic() < ends and not self._quit:
            self._turn(accept=True)
            if not orphan and not self.is_parent_alive():
                orphan, ends = True, min(ends, time.monotonic() + _ORPHAN_S)
        self._engine.abandon(Draining())  # who is left now gets an answer that says so
        self.set_accept_enabled(False)
        for listener in self.sockets:
            close_listener(listener, self._leave_to_others if self.retires else self._accept_all)
        self._send_answers()

    def _send_answers(self) -> None:
        ends = time.monotonic() + (STOP_KEEPALIVE_LINGER if not self._engine.admitted else _LAST_ANSWERS_S)
        while self.nr_conns > 0 and time.monotonic() < ends:
            self._turn(accept=False)

    def _break(self) -> None:
        """The engine is lost, and this process with it: answer those who wait, leave the rest to the next worker."""
        log.critical("the engine is lost (%s): this worker ends", self._engine.problem or "its thread died")
        self._engine.abandon(EngineStuck())
        self.set_accept_enabled(False)
        ends = time.monotonic() + _LAST_ANSWERS_S
        while self.nr_conns > 0 and time.monotonic() < ends:
            self._turn(accept=False)
        _leave(self._app, 1)  # a thread inside torch would keep the interpreter from ending

    def _end(self) -> None:
        """Close what is left; if a thread keeps the interpreter from ending, end it the hard way."""
        self.murder_keepalived(force=True)
        self.tpool.shutdown(wait=False, cancel_futures=True)
        self._ended = True
        threading.Thread(target=_leave, args=(self._app, 0, _EXIT_S), name="exit", daemon=True).start()

    def _skip_teardown(self) -> None:
        """All is done; taking torch apart takes seconds on a busy machine, and a thread inside it would abort."""
        if self._ended:
            _leave(self._app, 0)


def _leave(app: Any, status: int, after_s: float = 0.0) -> None:
    """End the process the hard way, once what it has to tell is written."""
    time.sleep(after_s)
    app.extensions["telemetry"].close()
    logging.shutdown()
    os._exit(status)
