"""The engine's thread: loading, answering, stopping, draining, giving up."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from qwen_allinone.engine import Capacity, Engine, Loaded, Status
from qwen_allinone.engine import engine as module
from qwen_allinone.errors import (
    Cancelled,
    CheckpointError,
    DeadlineExceeded,
    Draining,
    NotReady,
    ServerBusy,
)
from tests.support.engines import submit
from tests.support.fake_model import FakeModel, classify, expected_label, expected_reply, generate, loaded
from tests.unit.engine.running import CAPACITY, WAIT, Gate, Start, failure, wait_for


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

    def load() -> Loaded[None]:
        assert may_load.wait(WAIT)
        return loaded(FakeModel())

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

    def load() -> Loaded[None]:
        if not mended.is_set():
            raise error
        return loaded(FakeModel())

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


def test_stopping_fails_what_is_left(start: Start) -> None:
    gate = Gate()
    engine = start(FakeModel(before=gate), capacity=Capacity(slots=1, kv_tokens=64, step_tokens=16))
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
    engine = Engine(lambda: loaded(FakeModel()), CAPACITY)
    engine.stop()
    with pytest.raises(NotReady):
        submit(engine, generate([1], 1))
    engine.start()
    wait_for(lambda: engine.status is Status.STOPPED)
    engine.stop()
    assert engine.status is Status.STOPPED


@pytest.mark.parametrize("every_s", [0.02, 300.0])
def test_memory_is_tidied_when_idle_and_now_and_then_under_load(
    start: Start, monkeypatch: pytest.MonkeyPatch, every_s: float
) -> None:
    given: list[int] = []
    monkeypatch.setattr(module, "give_back", lambda: given.append(engine.running))
    monkeypatch.setattr(module, "_TIDY_S", every_s)
    monkeypatch.setattr(module, "_IDLE_WAIT_S", 60.0)
    engine = start(FakeModel(before=lambda chunks: time.sleep(0.01)))
    submit(engine, generate([1, 2], 20)).future.result(WAIT)
    assert bool(given) == (every_s < 1), "no moment was idle"
    monkeypatch.setattr(module, "_IDLE_WAIT_S", 0.01)
    given.clear()
    submit(engine, generate([1, 2], 1)).future.result(WAIT)
    wait_for(lambda: 0 in given)


def test_fixed_beginnings_are_computed_once(start: Start) -> None:
    model = FakeModel()
    prefixes = [[1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 9], [1, 2, 3, 4, 5, 6, 7, 8]]
    engine = start(loaded(model, prefixes), capacity=Capacity(slots=2, kv_tokens=64, step_tokens=16))
    for prefix in (prefixes[0], prefixes[1]):
        for tail in ([50], [51, 52], [53, 54, 55]):
            result = submit(engine, generate([*prefix, *tail], 4)).future.result(WAIT)
            assert result.ids == expected_reply([*prefix, *tail], 4)
            assert result.reused_tokens >= len(prefix)


def test_a_beginning_too_long_to_keep_is_left_out(start: Start) -> None:
    long, short = list(range(60)), [90, 91, 92]
    model = FakeModel(context=64)
    engine = start(loaded(model, [long, [1] * 65, short]), capacity=Capacity(slots=2, kv_tokens=40, step_tokens=16))
    result = submit(engine, generate([*short, 5], 2)).future.result(WAIT)
    assert result.reused_tokens == 3 and result.ids == expected_reply([*short, 5], 2)


def test_a_full_queue_turns_the_next_away_and_frees_up(start: Start) -> None:
    gate = Gate()
    engine = start(FakeModel(before=gate), capacity=Capacity(slots=1, kv_tokens=64, step_tokens=16, max_waiting=2))
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
    engine = start(FakeModel(), capacity=Capacity(slots=1, kv_tokens=64, step_tokens=16, max_waiting=0))
    for number in range(200):
        with engine.admit() as permit:
            assert len(engine.submit(generate([number % 97], 1), permit=permit).future.result(WAIT).ids) == 1


def test_a_chat_keeps_its_place_between_its_two_halves(start: Start) -> None:
    engine = start(FakeModel(), capacity=Capacity(slots=1, kv_tokens=64, step_tokens=16, max_waiting=0))
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

    def load() -> Loaded[None]:
        assert may_load.wait(WAIT)
        return loaded(FakeModel())

    engine = start(load, ready=False)
    engine.drain()
    assert engine.status is Status.DRAINING
    may_load.set()


def test_a_caller_that_cancels_the_future_itself_hurts_nobody_else(start: Start) -> None:
    gate = Gate()
    engine = start(FakeModel(before=gate))
    given_up, other = submit(engine, generate([1], 3)), submit(engine, generate([2], 6))
    given_up.future.cancel()
    gate.open()
    assert other.future.result(WAIT).ids == expected_reply([2], 6)


def test_cancel_and_deadline_take_effect_while_the_engine_runs(start: Start) -> None:
    model = FakeModel(context=4096, before=lambda chunks: time.sleep(0.001))
    engine = start(model, capacity=Capacity(slots=2, kv_tokens=8192, step_tokens=16))
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
