"""The engine: one thread owns the model and repeats schedule -> forward -> sample -> deliver."""

from __future__ import annotations

import enum
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qwen_allinone.engine.request import FinishReason, Ticket, Work
from qwen_allinone.engine.scheduler import Planned, Running, Scheduler
from qwen_allinone.engine.slots import SlotTable
from qwen_allinone.errors import EngineFailed, NotReady, StartupError
from qwen_allinone.model.kv import KVCache
from qwen_allinone.model.qwen2 import Chunk, Qwen2

log = logging.getLogger(__name__)

_IDLE_WAIT_S = 0.5
# A step that fails this often in a row is not one bad request any more.
_MOST_FAILURES = 3


class Status(enum.StrEnum):
    """What the engine is doing; requests are taken in READY only."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Loaded:
    """What a loader gives the engine: the model, and prompt beginnings to compute once."""

    model: Qwen2
    prefixes: Sequence[Sequence[int]] = ()


Loader = Callable[[], Loaded]


@dataclass(frozen=True)
class Limits:
    """Sizes of one engine, in compute threads, requests and tokens (see the settings of the same names)."""

    threads: int = 1
    slots: int = 8
    kv_tokens: int = 4096
    step_tokens: int = 256
    max_waiting: int = 32


class Engine:
    """Runs a model in a thread of its own. `submit` may be called from any thread."""

    def __init__(self, loader: Loader, limits: Limits, *, retry_load_s: float = 30.0) -> None:
        """`loader` runs in the engine's thread; if it raises, it is tried again every `retry_load_s` seconds."""
        self._loader = loader
        self._limits = limits
        self._retry_load_s = retry_load_s
        self._stopping = threading.Event()
        self._settled = threading.Event()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._status = Status.LOADING
        self._problem = ""
        self._model: Qwen2 | None = None
        self._scheduler: Scheduler | None = None

    def start(self) -> None:
        """Begin loading; returns at once."""
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """End after the step in hand; requests that are left fail with NotReady."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def wait_until_settled(self, timeout: float | None = None) -> Status:
        """Block until the first load has succeeded or failed."""
        self._settled.wait(timeout)
        return self._status

    def submit(self, work: Work, *, deadline: float | None = None) -> Ticket:
        """Queue `work`; the answer comes through the ticket's future.

        Raises:
            NotReady: no model is loaded.
            InputTooLong, ServerBusy: see Scheduler.submit.
        """
        scheduler = self._scheduler
        if self.status is not Status.READY or scheduler is None:
            raise NotReady()
        ticket = Ticket(work, deadline)
        scheduler.submit(ticket)
        return ticket

    @property
    def status(self) -> Status:
        """READY only while the thread that computes is alive."""
        if self._status is Status.READY and not self._thread.is_alive():
            return Status.FAILED
        return self._status

    @property
    def problem(self) -> str:
        """Why the model is not ready, for an operator; empty when nothing went wrong."""
        return self._problem

    @property
    def waiting(self) -> int:
        scheduler = self._scheduler
        return scheduler.waiting if scheduler else 0

    @property
    def running(self) -> int:
        scheduler = self._scheduler
        return scheduler.running if scheduler else 0

    @property
    def model(self) -> Qwen2 | None:
        return self._model

    def _run(self) -> None:
        torch.set_num_threads(self._limits.threads)  # OpenMP keeps this for each thread
        while not self._stopping.is_set():
            if not self._load_and_serve():
                self._stopping.wait(self._retry_load_s)
        self._status = Status.STOPPED
        self._settled.set()

    def _load_and_serve(self) -> bool:
        """Serve until told to stop or until the loop fails; False if it never came to serving.

        A method of its own, so that nothing holds the model any more when the next is loaded.
        """
        loaded = self._load()
        if loaded is None:
            return False
        try:
            self._serve(loaded)
        except Exception as error:
            served = self._status is Status.READY
            log.exception("engine loop failed, restarting it")
            self._fail(error)
            return served
        return True

    def _load(self) -> Loaded | None:
        try:
            return self._loader()
        except Exception as error:
            if not isinstance(error, StartupError):
                log.exception("loading the model failed")
            elif str(error) != self._problem:
                log.error("model not loaded: %s", error)
            self._fail(error)
            return None

    def _fail(self, error: Exception) -> None:
        self._problem = str(error) or type(error).__name__
        self._status = Status.FAILED
        self._settled.set()

    def _serve(self, loaded: Loaded) -> None:
        model, limits = loaded.model, self._limits
        cache = model.new_cache(limits.slots)
        slots = SlotTable(cache, limits.slots, limits.kv_tokens)
        for prefix in loaded.prefixes:
            _compute_prefix(prefix, model, cache, slots)
        scheduler = Scheduler(
            slots,
            max_waiting=limits.max_waiting,
            step_tokens=limits.step_tokens,
            longest=min(model.context, limits.kv_tokens),
        )
        self._model, self._scheduler = model, scheduler
        self._problem, self._status = "", Status.READY
        self._settled.set()
        try:
            self._loop(model, cache, scheduler)
        finally:
            scheduler.close(NotReady())
            self._model = self._scheduler = None  # a reload must not hold two models

    def _loop(self, model: Qwen2, cache: KVCache, scheduler: Scheduler) -> None:
        failures = 0
        while not self._stopping.is_set():
            if not scheduler.wait_for_work(_IDLE_WAIT_S):
                continue
            try:
                step(model, cache, scheduler)
                failures = 0
            except Exception as error:
                failures += 1
                lost = scheduler.fail_running(EngineFailed())
                log.exception("engine step failed; %d running requests failed with it", lost)
                if failures >= _MOST_FAILURES:
                    raise error


def step(model: Qwen2, cache: KVCache, scheduler: Scheduler) -> None:
    """One forward pass over what the running requests need next."""
    plan = scheduler.schedule()
    if not plan:
        return
    hidden = model.forward([planned.chunk for planned in plan], cache)
    for planned in plan:
        scheduler.computed(planned)
    due = [row for row, planned in enumerate(plan) if planned.complete]
    logits = _sample_rows(model, hidden, [plan[row] for row in due], due)
    for row in due:
        _deliver(scheduler, plan[row].running, logits[row])


def _sample_rows(model: Qwen2, hidden: Tensor, due: list[Planned], rows: list[int]) -> dict[int, Tensor]:
    """Logits of the requests that are due, by row: all of the vocabulary in one product, labels on their own."""
    wanted = {row: planned.running.ticket.work.wanted_ids for row, planned in zip(rows, due, strict=True)}
    free = [row for row in rows if wanted[row] is None]
    out = {row: model.logits_of(hidden[row], ids) for row, ids in wanted.items() if ids is not None}
    if free:
        out.update(zip(free, model.logits(hidden[free]), strict=True))
    return out


def _deliver(scheduler: Scheduler, running: Running, logits: Tensor) -> None:
    ticket = running.ticket
    if not ticket.first_token:
        ticket.first_token = time.monotonic()
    reason: FinishReason | None = ticket.work.accept(logits)
    if reason is None:
        scheduler.rewind(running)
        return
    result = ticket.result(reason)  # before the request leaves the running ones: if this raises, it fails with them
    scheduler.remove(running)
    ticket.future.set_result(result)


def _compute_prefix(prefix: Sequence[int], model: Qwen2, cache: KVCache, slots: SlotTable) -> None:
    """Compute a fixed beginning in a slot and keep a copy. One longer than the budget is not worth keeping."""
    slot = slots.acquire(prefix, len(prefix)) if len(prefix) <= model.context else None
    if slot is None:
        return
    rest = prefix[len(slot.tokens) :]
    model.forward([Chunk(slot.index, len(slot.tokens), rest)], cache)
    slot.tokens.extend(rest)
    slots.remember_prefix(slot)
    slots.release(slot)
