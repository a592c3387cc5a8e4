"""The engine: one thread owns the model and repeats schedule -> forward -> sample -> deliver."""

from __future__ import annotations

import gc
import logging
import threading
import time

import torch

from qwen_allinone.engine.admission import Admission, Permit
from qwen_allinone.engine.contract import Limits, Loaded, Loader, Status
from qwen_allinone.engine.failure import fail_step
from qwen_allinone.engine.request import Ticket, Work
from qwen_allinone.engine.scheduler import Scheduler
from qwen_allinone.engine.slots import SlotTable
from qwen_allinone.engine.step import compute_first, compute_prefix, step
from qwen_allinone.engine.watchdog import Watchdog
from qwen_allinone.errors import (
    Cancelled,
    Draining,
    EngineStuck,
    NotReady,
    QaioError,
    StartupError,
)
from qwen_allinone.host import give_back
from qwen_allinone.model.kv import KVCache
from qwen_allinone.model.qwen2 import Qwen2

log = logging.getLogger(__name__)

_IDLE_WAIT_S = 0.5
# How often garbage is collected and free memory goes back to the system, idle or not. By itself Python waits until
# garbage is a quarter of all there is: tens of thousands of requests with torch loaded. A collection takes 0.15 s.
_TIDY_S = 300.0
# A step that fails this often in a row is not one bad request any more.
_MOST_FAILURES = 3


class Engine:
    """Runs a model in a thread of its own. `admit`, `submit` and `abandon` may be called from any thread."""

    def __init__(
        self, loader: Loader, limits: Limits, *, retry_load_s: float = 30.0, stuck_s: float | None = None
    ) -> None:
        """`loader` runs in the engine's thread; if it raises, it is tried again every `retry_load_s` seconds.

        A step that takes longer than `stuck_s` seconds is given up, and the engine with it; None: never.
        """
        self._loader = loader
        self._limits = limits
        self._retry_load_s = retry_load_s
        self._admission = Admission(limits.slots, limits.max_waiting)
        self._watchdog = Watchdog(self._progress, stuck_s, self._give_up) if stuck_s else None
        self._steps = 0
        self._draining = False
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
        if self._watchdog:
            self._watchdog.start()

    def stop(self, timeout: float = 10.0) -> None:
        """End after the step in hand; requests that are left fail with NotReady."""
        self._stopping.set()
        if self._watchdog:
            self._watchdog.stop()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def wait_until_settled(self, timeout: float | None = None) -> Status:
        """Block until the first load has succeeded or failed."""
        self._settled.wait(timeout)
        return self._status

    def admit(self, deadline: float | None = None) -> Permit:
        """Take a place for a request that will `submit` work; to be given back, so use it as a context manager.

        Raises:
            NotReady: no model is loaded. Draining: the process is about to end.
            ServerBusy: see Admission.enter.
        """
        self._check_ready()
        return self._admission.enter(deadline)

    def check_room(self) -> None:
        """Raise ServerBusy if `admit` would find all places taken: for a refusal before any work is done."""
        if self.status is Status.READY and self._admission.room <= 0:
            raise self._admission.busy()

    def submit(self, work: Work, *, permit: Permit) -> Ticket:
        """Queue `work` of an admitted request; the answer comes through the ticket's future.

        Raises:
            NotReady: there is no model any more. Cancelled: the permit was.
            EmptyInput, InputTooLong: see Scheduler.submit.
        """
        scheduler = self._scheduler
        if scheduler is None:
            raise NotReady()
        if permit.cancelled:
            raise Cancelled()
        ticket = Ticket(work, permit.deadline, permit.place)
        scheduler.submit(ticket)
        permit.hold(ticket)
        return ticket

    def drain(self) -> None:
        """Admit nobody any more; who is inside is served. Safe in a signal handler."""
        self._draining = True

    def abandon(self, error: QaioError) -> None:
        """End what is left at once with `error`, even if the engine's thread hangs."""
        if scheduler := self._scheduler:
            scheduler.abandon(error)

    @property
    def status(self) -> Status:
        """READY only while the thread that computes is alive and new requests are taken."""
        status = self._status
        if status is Status.READY and not self._thread.is_alive():
            return Status.FAILED
        if self._draining and status in (Status.LOADING, Status.READY):
            return Status.DRAINING
        return status

    @property
    def broken(self) -> bool:
        """Nothing will be computed any more: the thread hangs, or it died without being told to stop."""
        died = self._thread.ident is not None and not self._thread.is_alive() and not self._stopping.is_set()
        return self._status is Status.STUCK or died

    @property
    def admitted(self) -> int:
        """Requests that have a place, computing, waiting or on their way between the two."""
        return self._admission.inside

    @property
    def room(self) -> int:
        """Places for further requests; none while the engine does not take any."""
        return max(self._admission.room, 0) if self.status is Status.READY else 0

    @property
    def has_free_slot(self) -> bool:
        """Whether the next request would be computed without waiting in line."""
        return self._admission.inside < self._limits.slots

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
        if self._status is not Status.STUCK:
            self._status = Status.STOPPED
        self._settled.set()

    def _load_and_serve(self) -> bool:
        """Serve until told to stop or until the loop fails; False if it never came to serving.

        A method of its own, so that nothing holds the model any more when the next is loaded.
        """
        loaded = self._load()
        if loaded is None:
            return False
        steps = self._steps
        try:
            self._serve(loaded)
        except Exception as error:
            log.exception("engine loop failed, restarting it")
            self._fail(error)
            return self._steps > steps
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
            compute_prefix(prefix, model, cache, slots)
        longest = min(model.context, limits.kv_tokens)
        scheduler = Scheduler(slots, step_tokens=limits.step_tokens, longest=longest)
        loaded.learn(compute_first(loaded.first, model, cache, scheduler))
        self._model, self._scheduler = model, scheduler
        self._problem, self._status = "", Status.READY
        log.info("ready: %s", loaded.title)
        self._settled.set()
        try:
            self._loop(model, cache, scheduler)
        finally:
            if self._status is Status.READY:  # before anybody learns that his request has failed
                self._status = Status.FAILED
            scheduler.close(NotReady())
            self._model = self._scheduler = None  # a reload must not hold two models

    def _loop(self, model: Qwen2, cache: KVCache, scheduler: Scheduler) -> None:
        failures, rested, tidied = 0, False, time.monotonic()
        while not self._stopping.is_set():
            idle = not scheduler.wait_for_work(_IDLE_WAIT_S)
            if due := time.monotonic() - tidied > _TIDY_S:
                gc.collect()
                tidied = time.monotonic()
            if due or (idle and not rested):
                give_back()
            rested = idle
            if idle:
                continue
            try:
                step(model, cache, scheduler)
                failures = 0
            except Exception as error:
                failures += 1
                lost = fail_step(scheduler, error)
                log.exception("engine step failed; %d running requests failed with it", lost)
                if failures >= _MOST_FAILURES:
                    raise error
            finally:
                self._steps += 1

    def _check_ready(self) -> None:
        status = self.status
        if status is Status.DRAINING:
            raise Draining()
        if status is Status.STUCK:
            raise EngineStuck()
        if status is not Status.READY:
            raise NotReady()

    def _progress(self) -> int | None:
        scheduler = self._scheduler
        return self._steps if scheduler and (scheduler.running or scheduler.waiting) else None

    def _give_up(self) -> None:
        """The watchdog's call. The thread cannot be ended; what can be is the waiting for it."""
        self._problem, self._status = "a step of the model does not end", Status.STUCK
        log.critical("engine stuck: %s; %d requests fail with it", self._problem, self.admitted)
        self._stopping.set()
        self.abandon(EngineStuck())
