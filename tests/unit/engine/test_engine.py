"""The engine's thread: loading and reloading, steps that fail, stopping; every request ends exactly once."""

from __future__ import annotations

import gc
import logging
import random
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from qwen_allinone.engine import Engine, FinishReason, Generate, Limits, Loaded, Status, Ticket
from qwen_allinone.errors import (
    WAYS_OUT,
    Cancelled,
    CheckpointError,
    DeadlineExceeded,
    Draining,
    EngineFailed,
    EngineStuck,
    NotReady,
    OutOfMemory,
    QaioError,
    ServerBusy,
)
from qwen_allinone.model.attention import Chunk
from tests.support.engines import submit
from tests.support.fake_model import FakeModel, classify, expected_label, expected_reply, generate

WAIT = 20.0
LIMITS = Limits(threads=1, slots=4, kv_tokens=256, step_tokens=16, max_waiting=8)

Start = Callable[..., Engine]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts engines and stops them after the test. Takes a loader, or models to be loaded one after the other."""
    engines: list[Engine] = []

    def begin(*models: Any, limits: Limits = LIMITS, retry_load_s: float = 0.02, ready: bool = True) -> Engine:
        queue = list(models)

        def load() -> Loaded:
            model = queue.pop(0) if len(queue) > 1 else queue[0]
            if isinstance(model, Exception):
                raise model
            return model if isinstance(model, Loaded) else Loaded(model)

        loader = models[0] if callable(models[0]) else load
        engine = Engine(loader, limits, retry_load_s=retry_load_s)
        engines.append(engine)
        engine.start()
        if ready:
            wait_for(lambda: engine.status is Status.READY)
        return engine

    yield begin
    for engine in engines:
        engine.stop()
        assert not engine._thread.is_alive(), "the engine does not stop"


def wait_for(condition: Callable[[], bool], timeout: float = WAIT) -> None:
    ends = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < ends, "it never happens"
        time.sleep(0.002)


def failure(ticket: Ticket) -> type[BaseException]:
    return type(ticket.future.exception(WAIT))


class Gate:
    """Blocks forward passes until opened; `entered` is set when one waits."""

    def __init__(self) -> None:
        self.entered, self._open = threading.Event(), threading.Event()
        self._error: Exception | None = None

    def __call__(self, chunks: Sequence[Chunk]) -> None:
        self.entered.set()
        assert self._open.wait(WAIT)
        if self._error:
            raise self._error

    def open(self, error: Exception | None = None) -> None:
        """Let the passes go on, or fail with `error`."""
        self._error = error
        self._open.set()


class Faults:
    """Raises on the forward passes whose numbers are given, counted from 1."""

    def __init__(self, *numbers: int) -> None:
        self.numbers, self.count = set(numbers), 0
        self.error: Exception | None = None

    def __call__(self, chunks: Sequence[Chunk]) -> None:
        self.count += 1
        if self.count in self.numbers:
            raise self.error or RuntimeError(f"planted fault {self.count}")


def test_answers_are_those_of_the_slow_loop(start: Start) -> None:
    engine = start(FakeModel())
    labels = [(1, 2), (1, 3), (4,)]
    texts = [submit(engine, generate([number, 5], 8)) for number in range(5)]
    label = submit(engine, classify([9, 9], labels))
    assert [t.future.result(WAIT).ids for t in texts] == [expected_reply([n, 5], 8) for n in range(5)]
    assert label.future.result(WAIT).label == expected_label([9, 9], labels)
    wait_for(lambda: engine.running == engine.waiting == 0)


def test_nothing_is_taken_before_the_model_is_loaded(start: Start) -> None:
    may_load = threading.Event()

    def load() -> Loaded:
        assert may_load.wait(WAIT)
        return Loaded(FakeModel())  # type: ignore[arg-type]

    engine = start(load, ready=False)
    assert engine.status is Status.LOADING and engine.problem == ""
    assert engine.wait_until_settled(0.01) is Status.LOADING
    with pytest.raises(NotReady) as caught:
        submit(engine, generate([1], 1))
    assert caught.value.retry_after
    may_load.set()
    assert engine.wait_until_settled(WAIT) is Status.READY
    assert submit(engine, generate([1], 1)).future.result(WAIT).ids == expected_reply([1], 1)


@pytest.mark.parametrize("error", [CheckpointError("no weights"), ValueError("no weights"), OSError("no weights")])
def test_a_model_that_does_not_load_is_tried_again_until_it_does(start: Start, error: Exception) -> None:
    mended = threading.Event()

    def load() -> Loaded:
        if not mended.is_set():
            raise error
        return Loaded(FakeModel())  # type: ignore[arg-type]

    engine = start(load, ready=False)
    assert engine.wait_until_settled(WAIT) is Status.FAILED
    assert "no weights" in engine.problem
    with pytest.raises(NotReady):
        submit(engine, generate([1], 1))
    mended.set()
    wait_for(lambda: engine.status is Status.READY)
    assert engine.problem == ""
    assert submit(engine, generate([1], 1)).future.result(WAIT).ids == expected_reply([1], 1)


def test_the_same_problem_is_logged_once_and_not_at_every_try(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    error = CheckpointError("no weights")
    with caplog.at_level(logging.ERROR):
        start(error, error, error, error, FakeModel())
    assert caplog.text.count("no weights") == 1


def test_an_error_without_words_is_named_by_its_kind(start: Start) -> None:
    engine = start(MemoryError(), FakeModel(), ready=False, retry_load_s=30)
    assert engine.wait_until_settled(WAIT) is Status.FAILED
    assert engine.problem == "MemoryError"


def test_a_step_that_fails_takes_only_the_running_requests_with_it(start: Start) -> None:
    gate = Gate()
    model = FakeModel(before=gate)
    engine = start(model, limits=Limits(slots=2, kv_tokens=128, step_tokens=16))
    running = [submit(engine, generate([1, 2], 5))]
    assert gate.entered.wait(WAIT)
    running.append(submit(engine, generate([3, 4], 5)))
    waiting = submit(engine, generate([5, 6], 5))
    faults = Faults(1)
    model.before = faults
    gate.open()
    # The first step goes on with one request; the fault meets both that have slots then.
    assert [failure(ticket) for ticket in running] == [EngineFailed, EngineFailed]
    assert waiting.future.result(WAIT).ids == expected_reply([5, 6], 5)
    assert engine.status is Status.READY
    again = submit(engine, generate([1, 2], 5)).future.result(WAIT)
    assert again.ids == expected_reply([1, 2], 5)
    assert again.reused_tokens == 0, "what the failed step left must not be reused"


def test_three_failures_in_a_row_load_the_model_again(start: Start) -> None:
    broken = FakeModel(before=Faults(*range(1, 100)))
    whole = FakeModel()
    engine = start(broken, whole)
    for _ in range(2):
        assert failure(submit(engine, generate([1, 2], 3))) is EngineFailed
        assert engine.model is broken
    assert failure(submit(engine, generate([1, 2], 3))) is EngineFailed
    wait_for(lambda: engine.model is whole and engine.status is Status.READY)
    assert submit(engine, generate([1, 2], 3)).future.result(WAIT).ids == expected_reply([1, 2], 3)
    assert engine.problem == ""


def test_requests_that_wait_when_the_loop_dies_fail_at_once(start: Start) -> None:
    gate = Gate()
    broken = FakeModel(before=Faults(1, 2))
    engine = start(
        broken, CheckpointError("gone"), limits=Limits(slots=1, kv_tokens=64, step_tokens=16), retry_load_s=30
    )
    for _ in range(2):
        assert failure(submit(engine, generate([1], 3))) is EngineFailed
    broken.before = gate
    running, waiting = submit(engine, generate([1], 3)), submit(engine, generate([2], 3))
    assert gate.entered.wait(WAIT)
    gate.open(RuntimeError("planted fault 3"))
    assert [failure(running), failure(waiting)] == [EngineFailed, NotReady]
    wait_for(lambda: engine.status is Status.FAILED and engine.problem == "gone. " + WAYS_OUT)
    with pytest.raises(NotReady):
        submit(engine, generate([3], 3))


def test_failures_that_are_not_in_a_row_do_not_load_again(start: Start) -> None:
    loads = []

    def load() -> Loaded:
        loads.append(1)
        # One forward pass each: 1 and 2 fail, 3 works, 4 and 5 fail, 6 works.
        return Loaded(FakeModel(before=Faults(1, 2, 4, 5)))  # type: ignore[arg-type]

    engine = start(load)
    outcomes = []
    for _ in range(6):
        error = submit(engine, generate([1], 1)).future.exception(WAIT)
        outcomes.append(type(error))
    assert outcomes == [EngineFailed, EngineFailed, type(None)] * 2
    assert len(loads) == 1 and engine.status is Status.READY


def test_the_old_model_is_gone_before_a_new_one_is_loaded(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    # pytest keeps log records, and those keep tracebacks, which keep the model.
    monkeypatch.setattr(logging.getLogger("qwen_allinone.engine.engine"), "disabled", True)
    old: list[weakref.ref[FakeModel]] = []
    alive_at_load: list[bool] = []

    def load() -> Loaded:
        gc.collect()
        alive_at_load.append(any(reference() is not None for reference in old))
        model = FakeModel(before=Faults(*range(1, 100)) if len(alive_at_load) < 3 else None)
        old.append(weakref.ref(model))
        return Loaded(model)  # type: ignore[arg-type]

    engine = start(load)
    for _ in range(6):
        wait_for(lambda: engine.status is Status.READY)
        with pytest.raises(EngineFailed):
            submit(engine, generate([1], 3)).future.result(WAIT)
        time.sleep(0.01)
    wait_for(lambda: len(alive_at_load) == 3 and engine.status is Status.READY)
    assert alive_at_load == [False, False, False]


def test_a_model_that_loads_but_cannot_serve_is_not_loaded_again_at_once(start: Start) -> None:
    """Loading takes a minute of both cores: without a pause the machine would do nothing else."""
    loads = []

    class NoMemory(FakeModel):
        def new_cache(self, slots: int) -> Any:
            raise MemoryError("no room for the cache")

    def load() -> Loaded:
        loads.append(1)
        return Loaded(NoMemory())  # type: ignore[arg-type]

    engine = start(load, ready=False, retry_load_s=30)
    assert engine.wait_until_settled(WAIT) is Status.FAILED
    time.sleep(0.1)
    assert len(loads) == 1
    assert "no room for the cache" in engine.problem


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_fails_what_is_left_and_turns_readiness_red(
    start: Start, error: type[BaseException]
) -> None:
    def die(chunks: Sequence[Chunk]) -> None:
        raise error

    engine = start(FakeModel(before=die))
    ticket = submit(engine, generate([1], 3))
    assert failure(ticket) is NotReady
    wait_for(lambda: engine.status is not Status.READY)
    wait_for(lambda: engine.broken)
    with pytest.raises(NotReady):
        submit(engine, generate([1], 3))


def test_stopping_fails_what_is_left(start: Start) -> None:
    gate = Gate()
    engine = start(FakeModel(before=gate), limits=Limits(slots=1, kv_tokens=64, step_tokens=16))
    running, waiting = submit(engine, generate([1], 9)), submit(engine, generate([2], 9))
    assert gate.entered.wait(WAIT)
    stopper = threading.Thread(target=engine.stop)
    stopper.start()
    wait_for(engine._stopping.is_set)
    gate.open()
    stopper.join(WAIT)
    assert [failure(running), failure(waiting)] == [NotReady, NotReady]
    assert engine.status is Status.STOPPED
    assert engine.running == engine.waiting == 0
    with pytest.raises(NotReady):
        submit(engine, generate([3], 1))


@pytest.mark.parametrize("first", [FakeModel(), CheckpointError("gone")], ids=["idle", "waiting to load again"])
def test_stopping_is_quick_when_there_is_nothing_to_do(start: Start, first: object) -> None:
    engine = start(first, ready=False, retry_load_s=60)
    engine.wait_until_settled(WAIT)
    began = time.monotonic()
    engine.stop()
    assert time.monotonic() - began < 5
    assert engine.status is Status.STOPPED


def test_stopping_twice_and_before_the_start_does_nothing() -> None:
    engine = Engine(lambda: Loaded(FakeModel()), LIMITS)  # type: ignore[arg-type]
    engine.stop()
    with pytest.raises(NotReady):
        submit(engine, generate([1], 1))
    engine.start()
    wait_for(lambda: engine.status is Status.STOPPED)
    engine.stop()
    assert engine.status is Status.STOPPED


def test_fixed_beginnings_are_computed_once(start: Start) -> None:
    model = FakeModel()
    prefixes = [[1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 9], [1, 2, 3, 4, 5, 6, 7, 8]]
    engine = start(Loaded(model, prefixes), limits=Limits(slots=2, kv_tokens=64, step_tokens=16))  # type: ignore[arg-type]
    for prefix in (prefixes[0], prefixes[1]):
        for tail in ([50], [51, 52], [53, 54, 55]):
            result = submit(engine, generate([*prefix, *tail], 4)).future.result(WAIT)
            assert result.ids == expected_reply([*prefix, *tail], 4)
            assert result.reused_tokens >= len(prefix)


def test_a_beginning_too_long_to_keep_is_left_out(start: Start) -> None:
    long, short = list(range(60)), [90, 91, 92]
    model = FakeModel(context=64)
    engine = start(Loaded(model, [long, [1] * 65, short]), limits=Limits(slots=2, kv_tokens=40, step_tokens=16))  # type: ignore[arg-type]
    result = submit(engine, generate([*short, 5], 2)).future.result(WAIT)
    assert result.reused_tokens == 3 and result.ids == expected_reply([*short, 5], 2)


def test_a_full_queue_turns_the_next_away_and_frees_up(start: Start) -> None:
    gate = Gate()
    engine = start(FakeModel(before=gate), limits=Limits(slots=1, kv_tokens=64, step_tokens=16, max_waiting=2))
    tickets = [submit(engine, generate([number], 2)) for number in range(3)]
    assert gate.entered.wait(WAIT)
    assert (engine.running, engine.waiting) == (1, 2)
    with pytest.raises(ServerBusy):
        submit(engine, generate([9], 2))
    gate.open()
    assert [t.future.result(WAIT).ids for t in tickets] == [expected_reply([n], 2) for n in range(3)]
    wait_for(lambda: engine.admitted == 0)
    assert submit(engine, generate([9], 2)).future.result(WAIT).ids == expected_reply([9], 2)


def test_a_slot_is_free_when_its_answer_is_given(start: Start) -> None:
    """A client that asks again at once must not be turned away because of its own last request."""
    engine = start(FakeModel(), limits=Limits(slots=1, kv_tokens=64, step_tokens=16, max_waiting=0))
    for number in range(200):
        with engine.admit() as permit:
            assert len(engine.submit(generate([number % 97], 1), permit=permit).future.result(WAIT).ids) == 1


def test_a_chat_keeps_its_place_between_its_two_halves(start: Start) -> None:
    engine = start(FakeModel(), limits=Limits(slots=1, kv_tokens=64, step_tokens=16, max_waiting=0))
    with engine.admit() as permit:
        engine.submit(classify([1], [(1,), (2,)]), permit=permit).future.result(WAIT)
        wait_for(lambda: engine.running == 0)
        with pytest.raises(ServerBusy):
            engine.admit()
        assert engine.room == 0
        result = engine.submit(generate([1, 2], 3), permit=permit).future.result(WAIT)
    assert result.ids == expected_reply([1, 2], 3)
    assert (engine.admitted, engine.room) == (0, 1)


def test_a_request_given_up_between_its_halves_gets_no_second(start: Start) -> None:
    model = FakeModel()
    engine = start(model)
    with engine.admit() as permit:
        engine.submit(generate([1], 2), permit=permit).future.result(WAIT)
        permit.cancel()
        before = model.forwarded
        with pytest.raises(Cancelled):
            engine.submit(generate([2], 2), permit=permit)
    assert model.forwarded == before and engine.admitted == 0


def test_draining_serves_who_is_inside_and_admits_nobody(start: Start) -> None:
    gate = Gate()
    engine = start(FakeModel(before=gate))
    with engine.admit() as permit:
        first = engine.submit(generate([1], 3), permit=permit)
        assert gate.entered.wait(WAIT)
        engine.drain()
        assert engine.status is Status.DRAINING and engine.room == 0
        with pytest.raises(Draining) as caught:
            engine.admit()
        assert caught.value.retry_after
        gate.open()
        assert first.future.result(WAIT).ids == expected_reply([1], 3)
        second = engine.submit(generate([2], 3), permit=permit)
        assert second.future.result(WAIT).ids == expected_reply([2], 3)
    assert engine.admitted == 0 and not engine.broken


def test_an_engine_that_drains_while_it_loads_says_so(start: Start) -> None:
    may_load = threading.Event()

    def load() -> Loaded:
        assert may_load.wait(WAIT)
        return Loaded(FakeModel())  # type: ignore[arg-type]

    engine = start(load, ready=False)
    engine.drain()
    assert engine.status is Status.DRAINING
    may_load.set()


def test_a_step_that_hangs_is_given_up_and_everybody_told_at_once() -> None:
    gate = Gate()
    engine = Engine(lambda: Loaded(FakeModel(before=gate)), Limits(slots=1, kv_tokens=64, step_tokens=16), stuck_s=0.3)  # type: ignore[arg-type]
    engine.start()
    wait_for(lambda: engine.status is Status.READY)
    seen: list[Status] = []
    tickets = [submit(engine, generate([number], 3)) for number in range(3)]
    tickets[0].future.add_done_callback(lambda _: seen.append(engine.status))
    assert [failure(ticket) for ticket in tickets] == [EngineStuck] * 3
    assert seen == [Status.STUCK] and engine.broken and engine.problem
    with pytest.raises(EngineStuck):
        engine.admit()
    gate.open()  # too late: what it computes is for nobody
    wait_for(lambda: not engine._thread.is_alive())
    assert engine.status is Status.STUCK and engine.broken
    wait_for(lambda: engine.admitted == 0)


def test_an_engine_that_is_slow_or_idle_is_not_stuck() -> None:
    model = FakeModel(context=256, before=lambda chunks: time.sleep(0.05))
    engine = Engine(lambda: Loaded(model), Limits(slots=1, kv_tokens=256, step_tokens=16), stuck_s=0.4)  # type: ignore[arg-type]
    engine.start()
    wait_for(lambda: engine.status is Status.READY)
    assert len(submit(engine, generate([1], 20)).future.result(WAIT).ids) == 20
    time.sleep(0.8)
    assert engine.status is Status.READY and not engine.broken
    engine.stop()


def test_whoever_learns_that_the_loop_died_sees_an_engine_that_is_not_ready(start: Start) -> None:
    gate = Gate()
    model = FakeModel(before=Faults(1, 2))
    engine = start(
        model, CheckpointError("gone"), limits=Limits(slots=1, kv_tokens=64, step_tokens=16), retry_load_s=30
    )
    for _ in range(2):
        assert failure(submit(engine, generate([1], 3))) is EngineFailed
    model.before = gate
    seen: list[Status] = []
    submit(engine, generate([1], 3))
    waiting = submit(engine, generate([2], 3))
    waiting.future.add_done_callback(lambda _: seen.append(engine.status))
    assert gate.entered.wait(WAIT)
    gate.open(RuntimeError("planted fault 3"))
    assert failure(waiting) is NotReady
    assert seen == [Status.FAILED]


def test_a_step_without_memory_gives_back_what_idle_slots_hold(start: Start) -> None:
    faults = Faults()
    engine = start(FakeModel(before=faults), limits=Limits(slots=2, kv_tokens=128, step_tokens=16))
    submit(engine, generate([1, 2, 3], 3)).future.result(WAIT)
    faults.numbers = {faults.count + 1}
    error = MemoryError("planted")
    faults.error = error
    assert failure(submit(engine, generate([9], 3))) is OutOfMemory
    scheduler = engine._scheduler
    assert scheduler is not None
    wait_for(lambda: sum(slot.held for slot in scheduler._slots._slots) == 0)
    assert submit(engine, generate([1, 2, 3], 3)).future.result(WAIT).ids == expected_reply([1, 2, 3], 3)


class Faulty(Generate):
    """A request at fault itself."""

    def fields(self) -> dict[str, object]:
        raise RuntimeError("planted: no answer can be made")


def test_an_answer_that_cannot_be_made_is_an_error_and_not_silence(start: Start) -> None:
    engine = start(FakeModel())
    work = Faulty([1, 2], generate([1, 2], 2)._sampling, frozenset())
    assert failure(submit(engine, work)) is EngineFailed
    assert submit(engine, generate([1], 2)).future.result(WAIT).ids == expected_reply([1], 2)
    assert engine.running == 0


def test_logits_that_are_not_numbers_fail_the_request(start: Start) -> None:
    class Nonsense(FakeModel):
        bad = True

        def logits(self, hidden: Tensor) -> Tensor:
            return super().logits(hidden) * (torch.nan if self.bad else 1.0)

    model = Nonsense()
    engine = start(model)
    from qwen_allinone.engine import Sampling

    sampled = Generate([1], Sampling(max_new_tokens=3, temperature=1.0, top_p=0.9, seed=1), frozenset())
    assert failure(submit(engine, sampled)) is EngineFailed
    model.bad = False
    assert submit(engine, generate([1], 2)).future.result(WAIT).ids == expected_reply([1], 2)


def test_a_caller_that_cancels_the_future_itself_hurts_nobody_else(start: Start) -> None:
    gate = Gate()
    engine = start(FakeModel(before=gate))
    given_up, other = submit(engine, generate([1], 3)), submit(engine, generate([2], 6))
    given_up.future.cancel()
    gate.open()
    assert other.future.result(WAIT).ids == expected_reply([2], 6)


def test_cancel_and_deadline_take_effect_while_the_engine_runs(start: Start) -> None:
    model = FakeModel(context=4096, before=lambda chunks: time.sleep(0.001))
    engine = start(model, limits=Limits(slots=2, kv_tokens=8192, step_tokens=16))
    cancelled = submit(engine, generate([1], 4000))
    expired = submit(engine, generate([2], 4000), deadline=time.monotonic() + 0.05)
    wait_for(lambda: len(cancelled.work.tokens) > 5)
    steps_at_end: list[int] = []
    cancelled.future.add_done_callback(lambda _: steps_at_end.append(len(model.steps)))
    cancelled.cancel()
    steps = len(model.steps)
    assert failure(cancelled) is Cancelled
    assert steps_at_end[0] - steps <= 2
    assert failure(expired) is DeadlineExceeded
    wait_for(lambda: engine.running == 0)


def step_failures(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if "engine step failed" in record.getMessage()]


@pytest.mark.parametrize("seed", range(3))
def test_every_request_ends_exactly_once_in_a_storm(start: Start, seed: int, caplog: pytest.LogCaptureFixture) -> None:
    """Four threads submit, cancel and set deadlines; some steps fail. Answers stay right and the books balance."""
    rng = random.Random(seed)
    planted = [0]

    def before(chunks: Sequence[Chunk]) -> None:
        if rng.random() < 0.02:
            planted[0] += 1
            raise RuntimeError("planted fault")

    limits = Limits(slots=rng.choice([1, 3, 5]), kv_tokens=rng.choice([64, 150]), step_tokens=16, max_waiting=6)
    model = FakeModel(before=before)
    engine = start(Loaded(model, [[1, 2, 3, 4]]), limits=limits)  # type: ignore[arg-type]
    tickets: list[tuple[Ticket, object]] = []
    endings: list[object] = []
    refused: list[type[QaioError]] = []

    def client(number: int) -> None:
        own = random.Random(seed * 100 + number)
        for _ in range(60):
            prompt = [1, 2, 3, 4][: own.randint(1, 4)] + [own.randrange(97) for _ in range(own.randint(0, 20))]
            labels = [(1, 2), (1, 3), (4,)]
            kind = own.random()
            work = classify(prompt, labels) if kind < 0.3 else generate(prompt, own.randint(1, 12))
            deadline = time.monotonic() + own.choice([-1, 0.001, 0.01]) if own.random() < 0.15 else None
            try:
                ticket = submit(engine, work, deadline=deadline)
            except (ServerBusy, NotReady) as error:
                refused.append(type(error))
                time.sleep(0.002)
                continue
            ticket.future.add_done_callback(endings.append)
            count = work.most_tokens - len(prompt)
            tickets.append((ticket, expected_label(prompt, labels) if kind < 0.3 else expected_reply(prompt, count)))
            if own.random() < 0.2:
                time.sleep(own.choice([0, 0.001]))
                ticket.cancel()
            elif own.random() < 0.5:
                ticket.future.exception(WAIT)

    with caplog.at_level(logging.ERROR):
        clients = [threading.Thread(target=client, args=(number,)) for number in range(4)]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join(60)
            assert not thread.is_alive(), "a client waits for ever"
        ends = Counter(failure(ticket) for ticket, _ in tickets)
        wait_for(lambda: engine.running == engine.waiting == 0)
        wait_for(lambda: len(step_failures(caplog)) >= planted[0])  # a request fails a moment before the line is logged
    assert len(tickets) + len(refused) == 240
    assert Counter(map(id, endings)) == Counter(id(ticket.future) for ticket, _ in tickets)
    assert set(ends) <= {type(None), Cancelled, DeadlineExceeded, EngineFailed, NotReady}
    assert ends[type(None)] > 50
    for ticket, answer in tickets:
        if ticket.future.exception(0) is None:
            result = ticket.future.result(0)
            assert (result.label if result.finish_reason is FinishReason.LABEL else result.ids) == answer
    assert len(step_failures(caplog)) == planted[0], "a step failed for a reason that was not planted"
    scheduler = engine._scheduler
    assert scheduler is not None
    scheduler._slots.check_integrity()
    assert scheduler._slots.busy == 0
