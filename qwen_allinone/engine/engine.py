"""The engine: one thread owns the model and repeats schedule -> forward -> read -> deliver."""

from __future__ import annotations

import gc
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic

import torch

from qwen_allinone.engine.admission import Admission, Permit
from qwen_allinone.engine.contract import Capacity, Loaded, T
from qwen_allinone.engine.drafts import Drafting, price_of_a_row
from qwen_allinone.engine.failure import fail_step
from qwen_allinone.engine.lifecycle import Life, Status
from qwen_allinone.engine.pace import Pace
from qwen_allinone.engine.scheduler import Scheduler
from qwen_allinone.engine.slots import SlotTable
from qwen_allinone.engine.step import compute_first, compute_prefix, step
from qwen_allinone.engine.ticket import Ticket
from qwen_allinone.engine.watchdog import Watchdog
from qwen_allinone.engine.work import Result, Work
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
from qwen_allinone.wording import message_of

log = logging.getLogger(__name__)

_IDLE_WAIT_S = 0.5
# How often garbage is collected and free memory goes back to the system, idle or not. By itself Python waits until
# garbage is a quarter of all there is: tens of thousands of requests with torch loaded. A collection takes 0.15 s.
_TIDY_S = 300.0
# A step that fails this often in a row is not one bad request any more.
_MOST_FAILURES = 3


@dataclass(frozen=True)
class _Serving(Generic[T]):
    """What one load has brought, shown to other threads all at once."""

    model: Qwen2
    scheduler: Scheduler
    published: T
    drafting: Drafting | None


class Engine(Generic[T]):
    """Runs a model in a thread of its own. `admit`, `submit` and `abandon` may be called from any thread."""

    def __init__(
        self,
        loader: Callable[[], Loaded[T]],
        capacity: Capacity,
        *,
        retry_load_s: float = 30.0,
        stuck_s: float | None = None,
    ) -> None:
        """`loader` runs in the engine's thread; if it raises, it is tried again every `retry_load_s` seconds.

        A step that takes longer than `stuck_s` seconds is given up, and the engine with it; None: never.
        """
        self._loader = loader
        self._capacity = capacity
        self._retry_load_s = retry_load_s
        self._admission: Admission[T] = Admission(capacity.slots, capacity.max_waiting, capacity.shares)
        self.pace = Pace(self._others_about)
        self._watchdog = Watchdog(self._steps_if_due, stuck_s, self._give_up) if stuck_s else None
        self._steps = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._life = Life()
        self._serving: _Serving[T] | None = None

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
        if serving := self._serving:
            serving.scheduler.wake()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def wait_until_settled(self, timeout: float | None = None) -> Status:
        """Block until the first load has succeeded or failed."""
        return self._life.wait_until_settled(timeout)

    def admit(
        self, deadline: float = math.inf, caller: str | None = None, *, behind: bool = False, priority: int = 0
    ) -> Permit[T]:
        """Let a request of `caller` in that will `submit` work; `behind`: whenever nobody else wants the engine.

        Of those in line the ones with the highest `priority` come first.

        Its permit is to be given back, so use it as a context manager.

        Raises:
            NotReady: no model is loaded. Draining: the process is about to end.
            ServerBusy: see Admission.enter.
        """
        status, serving = self.status, self._serving
        if status is Status.DRAINING:
            raise Draining()
        if status is Status.STUCK:
            raise EngineStuck()
        if status is not Status.READY or serving is None:
            raise NotReady()
        if behind:
            return self._admission.enter_behind(deadline, serving.published, caller)
        return self._admission.enter(deadline, serving.published, caller, priority)

    def check_room(self) -> None:
        """Raise ServerBusy if `admit` would: for a refusal before any work is done."""
        if self._admission.inside >= self._admission.limit and self.status is Status.READY:
            raise self._admission.busy()

    def submit(self, work: Work, *, permit: Permit[T]) -> Ticket:
        """Queue `work` of an admitted request; the answer comes through the ticket's future.

        Raises:
            NotReady: the model that the request was admitted for is gone. Cancelled: the permit was.
            EmptyInput, InputTooLong: see Scheduler.submit.
        """
        serving = self._serving
        if serving is None or serving.published is not permit.published:
            raise NotReady()
        if permit.cancelled:
            raise Cancelled()
        ticket = Ticket(work, permit.deadline, permit.rank, permit.caller, permit.behind, permit.priority)
        serving.scheduler.submit(ticket)
        permit.hold(ticket)
        return ticket

    def drain(self) -> None:
        """Admit nobody any more; who is inside is served. Safe in a signal handler."""
        self._life.drain()

    def abandon(self, error: QaioError) -> None:
        """End what is left at once with `error`, even if the engine's thread hangs."""
        if serving := self._serving:
            serving.scheduler.abandon(error)

    @property
    def status(self) -> Status:
        """READY only while the thread that computes is alive and new requests are taken."""
        status = self._life.status
        return Status.FAILED if status is Status.READY and not self._thread.is_alive() else status

    @property
    def broken(self) -> bool:
        """Nothing will be computed any more: the thread hangs, or it died without being told to stop."""
        died = self._thread.ident is not None and not self._thread.is_alive() and not self._stopping.is_set()
        return self._life.status is Status.STUCK or died

    @property
    def admitted(self) -> int:
        """Requests that were let in and have not ended: computing, waiting or on their way between the two."""
        return self._admission.inside

    @property
    def room(self) -> int:
        """How many further requests `admit` would let in; none while the engine does not take any."""
        return max(self._admission.limit - self._admission.inside, 0) if self.status is Status.READY else 0

    @property
    def has_free_slot(self) -> bool:
        """Whether the next request would be computed without waiting in line."""
        return self._admission.inside < self._capacity.slots

    @property
    def problem(self) -> str:
        """Why the model is not ready, for an operator; empty when nothing went wrong."""
        return self._life.problem

    @property
    def waiting(self) -> int:
        return serving.scheduler.waiting if (serving := self._serving) else 0

    @property
    def running(self) -> int:
        return serving.scheduler.running if (serving := self._serving) else 0

    @property
    def model(self) -> Qwen2 | None:
        """The model in use, for the doctor's table; None while there is none."""
        return serving.model if (serving := self._serving) else None

    @property
    def drafting(self) -> Drafting | None:
        """What drafts cost, for the doctor's table; None where none are made, whatever they cost."""
        return serving.drafting if (serving := self._serving) else None

    @property
    def published(self) -> T:
        """What the loader made to go with the model; raises NotReady while there is none."""
        if (serving := self._serving) is None:
            raise NotReady()
        return serving.published

    def _run(self) -> None:
        torch.set_num_threads(self._capacity.threads)  # OpenMP keeps this for each thread
        while not self._stopping.is_set():
            if not self._load_and_serve():
                self._stopping.wait(self._retry_load_s)
        self._life.stopped()

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
            if self._stopping.is_set():
                return True
            log.exception("engine loop failed, restarting it")
            self._life.failed(message_of(error) or type(error).__name__)
            return self._steps > steps
        return True

    def _load(self) -> Loaded[T] | None:
        try:
            return self._loader()
        except Exception as error:
            problem = message_of(error) or type(error).__name__
            if not isinstance(error, StartupError):
                log.exception("loading the model failed")
            elif problem != self.problem:
                log.error("model not loaded: %s", error)
            self._life.failed(problem)
            return None

    def _serve(self, loaded: Loaded[T]) -> None:
        model, capacity = loaded.model, self._capacity
        cache = model.new_cache(capacity.slots)
        drafting = _drafting(model, cache) if capacity.drafts else None
        slots = SlotTable(cache, capacity.slots, capacity.kv_tokens, capacity.caller_slots)
        for prefix in loaded.prefixes:
            compute_prefix(prefix, model, cache, slots)
        for adapter, prefix in loaded.adapted_prefixes.items():
            compute_prefix(prefix, model, cache, slots, adapter)
        longest = min(model.context, capacity.kv_tokens)
        scheduler = Scheduler(
            slots,
            step_tokens=capacity.step_tokens,
            longest=longest,
            share_tokens=capacity.share_tokens,
            shares=capacity.shares,
            drafting=drafting,
        )

        def compute(works: Sequence[Work]) -> list[Result]:
            if self._stopping.is_set():  # it may take a while, and nobody waits for it any more
                raise NotReady()
            return compute_first(works, model, cache, scheduler)

        published = loaded.publish(compute)
        self._serving = _Serving(model, scheduler, published, drafting)
        log.info("ready: %s, %s", loaded.title, _told(drafting))  # before those who wait for it go on
        self._life.loaded()
        try:
            self._loop(model, cache, scheduler)
        finally:
            if not self._stopping.is_set():  # before a caller learns that its request has failed
                self._life.failed()
            scheduler.close(NotReady())
            self._serving = None  # a reload must not hold two models

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

    def _others_about(self, caller: str | None) -> bool:
        return serving.scheduler.others_about(caller) if (serving := self._serving) else False

    def _steps_if_due(self) -> int | None:
        """For the watchdog: steps so far, None while there is nothing to compute."""
        return self._steps if self.running or self.waiting else None

    def _give_up(self) -> None:
        """The watchdog's call. The thread cannot be ended; what can be is the waiting for it."""
        self._life.stuck("a step of the model does not end")
        log.critical("engine stuck: %s; %d requests fail with it", self.problem, self.admitted)
        self._stopping.set()
        self.abandon(EngineStuck())


def _drafting(model: Qwen2, cache: KVCache) -> Drafting | None:
    """What drafts cost here. None where a row's bits depend on the rows beside it, as with torch's kernels: there a
    draft could change a reply."""
    return Drafting(price_of_a_row(model, cache)) if model.rows_keep_their_bits else None


def _told(drafting: Drafting | None) -> str:
    """For the log's line of a start, one line of eight."""
    if drafting is None:
        return "drafts off"
    return f"drafts {'on' if drafting.pays else 'off'} (a row more: {drafting.price:.0%} of a step)"
