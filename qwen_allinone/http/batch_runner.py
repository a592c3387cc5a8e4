"""Works batches off in the idle slots of a worker: one thread takes lines, a few more ask them.

Whatever it does is kept in one transaction at its end, so it may be stopped or killed at any time: a line that was not
answered by then is another worker's.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator

from flask import Flask

from qwen_allinone.engine import Status
from qwen_allinone.errors import BatchesUnavailable, QaioError
from qwen_allinone.http import batch_lines
from qwen_allinone.http.batch_calls import LineAnswer, LineCall, call
from qwen_allinone.service import Service
from qwen_allinone.state import Draft, HeldLine, InputLine, LineProblem, SqliteBatches, outcome
from qwen_allinone.state.batches import MOST_ERRORS
from qwen_allinone.state.lease import Lease
from qwen_allinone.wording import said

log = logging.getLogger(__name__)

# How often it looks for what other workers were given, and for a free slot; in seconds.
_LOOKS_EVERY_S, _FREE_LOOK_S = 1.0, 0.05
# After a failure of the store, or where a line was refused for no fault of its own.
_PAUSE_S = 2.0
# How often files whose time is over are looked for.
_SWEEP_EVERY_S = 60.0
# A line is another's again when its holder must be dead: the longest a request may take, and a while to keep what it
# said.
_HOLD_BEHIND_S = 30.0
# A line at which its process dies, or that fails here, so often is given up.
_MOST_TRIES = 5
_CHECKED_AT_ONCE = 200
# The part of its hold after which who looks through a file says that he still does.
_RENEWED_AFTER = 0.2
# Answers that say nothing of the line: it had to make way, or this process ends.
_INNOCENT = frozenset({"server_busy", "not_ready", "draining", "engine_stuck", "cancelled"})


class BatchRunner:
    """One worker's part in all batches. `at_once`: lines asked at the same time."""

    def __init__(
        self,
        app: Flask,
        service: Service,
        store: SqliteBatches,
        *,
        at_once: int,
        deadline_s: float,
        most_bytes: int,
        woken: threading.Event,
    ) -> None:
        """`woken` is set by whoever has something new to do; `most_bytes`: of one line."""
        self._app = app
        self._service = service
        self._store = store
        self._at_once = at_once
        self._hold_s = deadline_s + _HOLD_BEHIND_S
        self._most_bytes = most_bytes
        self._known = batch_lines.endpoints(task.name for task in service.registry)
        self._stopping = threading.Event()
        self._woken = woken
        self._lock = threading.Lock()
        self._running = 0
        self._swept = 0.0
        self._thread = threading.Thread(target=self._run, name="batches", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """Begin nothing more; lines in hand are given back as the engine lets go of them."""
        self._stopping.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._woken.clear()
            wait_s = _PAUSE_S
            try:
                wait_s = self._work()
            except QaioError as error:  # a store that cannot be used: said elsewhere
                log.debug("batches: %s: tried again later", type(error).__name__)
            except Exception:
                log.exception("batches: unexpected error; tried again later")
            if wait_s:
                self._woken.wait(wait_s)

    def _work(self) -> float:
        """Do one thing; returns for how many seconds there is nothing more to do."""
        if self._service.engine.status is not Status.READY or not self._store.exists:
            return _LOOKS_EVERY_S
        if time.monotonic() >= self._swept + _SWEEP_EVERY_S:
            self._swept = time.monotonic()
            self._apart(self._store.drop_expired)
            self._apart(self._store.erase)
        self._apart(lambda: self._store.settle(self._lease()))
        if draft := self._store.draft(lease := self._lease()):
            self._look_through(draft, lease)
            return 0.0
        if not (room := self._room()):
            return _FREE_LOOK_S
        lines = self._store.take(self._lease(), room)
        for line in lines:
            with self._lock:
                self._running += 1
            # A daemon: where a line hangs, it does not keep the process from ending.
            threading.Thread(target=self._answer, args=(line,), name="batch-line", daemon=True).start()
        return 0.0 if lines else _LOOKS_EVERY_S

    def _apart(self, chore: Callable[[], None]) -> None:
        """Do what others' lines do not wait for: where it fails, they are answered nevertheless."""
        try:
            chore()
        except QaioError as error:
            log.debug("batches: %s: tried again later", type(error).__name__)
        except Exception:
            log.exception("batches: unexpected error; tried again later")

    def _room(self) -> int:
        """How many lines may be begun: a few, one beside a client's request, none where a client would wait for it."""
        engine = self._service.engine
        if engine.waiting or not engine.has_free_slot:
            return 0
        most = 1 if engine.admitted else self._at_once
        return max(most - self._running, 0)

    def _look_through(self, draft: Draft, lease: Lease) -> None:
        """Keep the lines of a batch's file, or say what is wrong with them."""
        checker = batch_lines.Checker(draft.endpoint, self._known, self._most_bytes)
        kept: list[InputLine] = []
        problems: list[LineProblem] = []
        total = 0
        try:
            for line in batch_lines.split(self._blocks(draft, lease), self._most_bytes):
                found = checker.check(line)
                if isinstance(found, LineProblem):
                    problems.append(found)
                    if len(problems) == MOST_ERRORS:
                        break
                    continue
                total += 1
                if problems:  # it is only looked at
                    continue
                kept.append(found)
                if len(kept) == _CHECKED_AT_ONCE:
                    self._add(draft, kept, lease)
                    kept = []
            if not total and not problems:
                problems.append(LineProblem("empty_file", said("file_without_lines")))
            if problems:
                self._store.fail(draft, problems)
                return
            self._add(draft, kept, lease)
        except _Lost:
            return
        self._store.begin(draft, total)

    def _add(self, draft: Draft, lines: list[InputLine], lease: Lease) -> None:
        if not self._store.add_lines(draft, lines, lease):
            raise _Lost

    def _blocks(self, draft: Draft, lease: Lease) -> Iterator[bytes]:
        """The bytes of its file. However long that is looked at, nobody else takes it for forgotten."""
        renewed = time.monotonic()
        for block in self._store.blocks(draft.file):
            if self._stopping.is_set():
                raise _Lost
            if time.monotonic() >= renewed + lease.seconds * _RENEWED_AFTER:
                renewed = time.monotonic()
                if not self._store.renew(draft, lease):
                    raise _Lost
            yield block

    def _answer(self, line: HeldLine) -> None:
        try:
            self._ask(line)
        except BatchesUnavailable:
            log.warning("batches: line %d of %s is left to others: its answer cannot be kept", line.number, line.batch)
        except Exception:
            log.exception("batches: line %d of %s", line.number, line.batch)
        finally:
            with self._lock:
                self._running -= 1
            self._woken.set()

    def _ask(self, line: HeldLine) -> None:
        """Ask a line, and keep its answer or give it back."""
        id = f"batch_req_{secrets.token_hex(12)}"
        if line.tries > _MOST_TRIES:
            error = {"code": "batch_line_failed", "message": said("line_gave_up", most_tries=_MOST_TRIES)}
            self._keep(line, outcome(id, line.custom_id, None, error), good=False)
            return
        answer = self._called(line, id)
        if answer.code in _INNOCENT and not answer.is_good:
            self._store.give_back(line, tried=False)
            self._stopping.wait(_PAUSE_S)
        elif answer.status >= 500 and line.tries < _MOST_TRIES:
            self._store.give_back(line, tried=True)
            self._stopping.wait(_PAUSE_S)
        else:
            response = {"status_code": answer.status, "request_id": id, "body": answer.body}
            self._keep(line, outcome(id, line.custom_id, response, None), good=answer.is_good)

    def _called(self, line: HeldLine, id: str) -> LineAnswer:
        body = batch_lines.read(line.raw)["body"]
        return call(self._app, LineCall(line.owner, f"{line.batch}/{line.number}"), line.endpoint, body, id)

    def _keep(self, line: HeldLine, told: object, *, good: bool) -> None:
        answer = json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()
        self._patiently(lambda: self._store.finish(line, answer, good=good))

    def _patiently(self, keep: Callable[[], object]) -> None:
        """What was computed is worth a wait for a full disk, while the line is still ours."""
        ends = time.monotonic() + _HOLD_BEHIND_S - 2 * _PAUSE_S
        while True:
            try:
                keep()
                return
            except BatchesUnavailable:
                if time.monotonic() >= ends or self._stopping.wait(_PAUSE_S):
                    raise

    def _lease(self) -> Lease:
        return Lease.take(self._hold_s, self._hold_s)


class _Lost(Exception):
    """A file is not looked through to its end: the batch is cancelled or another's by now, or this process ends."""
