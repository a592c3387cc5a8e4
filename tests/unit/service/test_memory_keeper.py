"""The thread behind the answers: what it does with a note when the service refuses, fails, or never will do it."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from qwen_allinone.errors import Draining, EngineFailed, InputTooLong, MemoryUnavailable, QaioError, ServerBusy
from qwen_allinone.service import Keeper, memory_keeper
from qwen_allinone.service.answer_types import Answer
from qwen_allinone.state import Whose
from tests.support.clock import Clock
from tests.support.engines import idle_engine
from tests.support.naive_memories import NaiveMemories

XIAO = Whose("alice", "u-1")


class Said:
    """A service whose answers and errors are given."""

    def __init__(self, *said: Any) -> None:
        self.said = list(said)
        self.engine = idle_engine()
        self.codec = type("Codec", (), {"model_id": "m"})()
        self.asked: list[tuple[Any, ...]] = []

    def run(self, name: str, inputs: Any, terms: Any) -> Answer:
        self.asked.append((name, inputs["text"], terms.caller))
        said = self.said.pop(0)
        if isinstance(said, Exception):
            raise said
        return Answer(name, None, items=said)  # type: ignore[arg-type]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> NaiveMemories:
    store = NaiveMemories(clock, ttl_s=1e9, most=100)
    store.note(XIAO, "我喜欢爬山", None)
    return store


def keeper(service: Said, store: NaiveMemories) -> Keeper:
    return Keeper(service, store, deadline_s=1.0)  # type: ignore[arg-type]


def test_what_is_found_is_kept_for_who_said_it(store: NaiveMemories) -> None:
    service = Said(("用户喜欢爬山", "无", "用户的卡号是6222021234567890123"))
    assert keeper(service, store).work()
    assert service.asked == [("remember", "我喜欢爬山", "alice")]
    assert [memory.text for memory in store.all(XIAO)] == ["用户喜欢爬山"]
    assert store.take(1.0) is None


def test_a_service_that_is_full_or_stopping_costs_a_note_nothing(store: NaiveMemories, clock: Clock) -> None:
    service = Said(*[ServerBusy(), Draining()] * 10, ("用户喜欢爬山",))
    for _ in range(20):
        with pytest.raises(QaioError):
            keeper(service, store).work()
        clock.now += 5
    assert keeper(service, store).work() and len(store.all(XIAO)) == 1


@pytest.mark.parametrize("error", [EngineFailed(), RuntimeError("planted fault")])
def test_a_note_that_fails_again_and_again_is_given_up(store: NaiveMemories, clock: Clock, error: Exception) -> None:
    service = Said(*[error] * 5)
    for _ in range(5):
        with pytest.raises(type(error)):
            keeper(service, store).work()
        clock.now += 1000
    assert keeper(service, store).work(), "it is settled, and nobody is asked"
    assert store.all(XIAO) == [] and store.take(1.0) is None


def test_a_text_that_no_task_takes_is_done_with(store: NaiveMemories) -> None:
    assert keeper(Said(InputTooLong("too long")), store).work()
    assert store.all(XIAO) == [] and store.take(1e9) is None


def test_what_was_forgotten_is_erased_however_long_a_note_takes(
    store: NaiveMemories, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, asked, erased = threading.Event(), threading.Event(), threading.Semaphore(0)

    class Slow(Said):
        def run(self, name: str, inputs: Any, terms: Any) -> Answer:
            asked.set()
            assert held.wait(30)
            return super().run(name, inputs, terms)

    def erase() -> None:
        erased.release()
        raise MemoryUnavailable  # it goes on all the same

    monkeypatch.setattr(memory_keeper, "_ERASES_EVERY_S", 0.01)
    monkeypatch.setattr(store, "erase", erase)
    keeping = keeper(Slow(()), store)
    keeping.start()
    try:
        assert asked.wait(30)
        while erased.acquire(blocking=False):
            pass
        assert erased.acquire(timeout=30) and erased.acquire(timeout=30)
    finally:
        held.set()
        keeping.stop()
