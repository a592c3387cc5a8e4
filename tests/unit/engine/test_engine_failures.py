"""Steps and models that fail, threads that die or hang: every request ends exactly once, and the engine goes on."""

from __future__ import annotations

import gc
import logging
import math
import random
import threading
import time
import weakref
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from qwen_allinone.engine import Capacity, Engine, FinishReason, Generate, Loaded, Status, Ticket
from qwen_allinone.errors import (
    WAYS_OUT,
    Cancelled,
    CheckpointError,
    DeadlineExceeded,
    EngineFailed,
    EngineStuck,
    NotReady,
    OutOfMemory,
    QaioError,
    ServerBusy,
)
from qwen_allinone.model.attention import Chunk
from tests.support.engines import submit
from tests.support.fake_model import FakeModel, classify, expected_label, expected_reply, generate, loaded
from tests.unit.engine.running import WAIT, Faults, Gate, Start, failure, wait_for


def test_a_step_that_fails_takes_only_the_running_requests_with_it(start: Start) -> None:
    gate = Gate()
    model = FakeModel(before=gate)
    engine = start(model, capacity=Capacity(slots=2, kv_tokens=128, step_tokens=16))
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
        broken, CheckpointError("gone"), capacity=Capacity(slots=1, kv_tokens=64, step_tokens=16), retry_load_s=30
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

    def load() -> Loaded[None]:
        loads.append(1)
        # One forward pass each: 1 and 2 fail, 3 works, 4 and 5 fail, 6 works.
        return loaded(FakeModel(before=Faults(1, 2, 4, 5)))

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

    def load() -> Loaded[None]:
        gc.collect()
        alive_at_load.append(any(reference() is not None for reference in old))
        model = FakeModel(before=Faults(*range(1, 100)) if len(alive_at_load) < 3 else None)
        old.append(weakref.ref(model))
        return loaded(model)

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

    def load() -> Loaded[None]:
        loads.append(1)
        return loaded(NoMemory())

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


def test_a_step_that_hangs_is_given_up_and_everybody_told_at_once() -> None:
    gate = Gate()
    engine = Engine(
        lambda: loaded(FakeModel(before=gate)), Capacity(slots=1, kv_tokens=64, step_tokens=16), stuck_s=0.3
    )
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
    engine = Engine(lambda: loaded(model), Capacity(slots=1, kv_tokens=256, step_tokens=16), stuck_s=0.4)
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
        model, CheckpointError("gone"), capacity=Capacity(slots=1, kv_tokens=64, step_tokens=16), retry_load_s=30
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
    engine = start(FakeModel(before=faults), capacity=Capacity(slots=2, kv_tokens=128, step_tokens=16))
    submit(engine, generate([1, 2, 3], 3)).future.result(WAIT)
    faults.numbers = {faults.count + 1}
    error = MemoryError("planted")
    faults.error = error
    assert failure(submit(engine, generate([9], 3))) is OutOfMemory
    assert engine._serving is not None
    scheduler = engine._serving.scheduler
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


class Unreadable(Generate):
    """A request that makes nothing of what was computed for it."""

    def read(self, logits: Tensor) -> FinishReason | None:
        raise ValueError("planted: nothing can be drawn")


@pytest.mark.parametrize("faulty", [Faulty, Unreadable])
def test_a_request_at_fault_takes_none_of_those_beside_it_along(start: Start, faulty: type[Generate]) -> None:
    engine = start(FakeModel(before=lambda _: time.sleep(0.002)))
    beside = [submit(engine, generate([number, 2], 60)) for number in range(3)]
    for _ in range(5):
        work = faulty([1, 2], generate([1, 2], 2)._sampling, frozenset())
        assert failure(submit(engine, work)) is EngineFailed
    for number, ticket in enumerate(beside):
        assert ticket.future.result(WAIT).ids == expected_reply([number, 2], 60)
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

    capacity = Capacity(slots=rng.choice([1, 3, 5]), kv_tokens=rng.choice([64, 150]), step_tokens=16, max_waiting=6)
    model = FakeModel(before=before)
    engine = start(loaded(model, [[1, 2, 3, 4]]), capacity=capacity)
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
            deadline = time.monotonic() + own.choice([-1, 0.001, 0.01]) if own.random() < 0.15 else math.inf
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
    assert engine._serving is not None
    scheduler = engine._serving.scheduler
    scheduler._slots.check_integrity()
    assert scheduler._slots.busy == 0
