"""The watchdog barks when work is due and nothing moves, and at nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from qwen_allinone.engine.watchdog import Watchdog

WAIT = 20.0
STUCK_S = 0.2

Watch = Callable[[Callable[[], int | None]], threading.Event]


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Starts a watchdog over what is given; returns the event that it barked."""
    dogs: list[Watchdog] = []

    def begin(progress: Callable[[], int | None]) -> threading.Event:
        barked = threading.Event()
        dogs.append(Watchdog(progress, STUCK_S, barked.set))
        dogs[-1].start()
        return barked

    yield begin
    for dog in dogs:
        dog.stop()


def test_work_that_does_not_move_is_noticed(watch: Watch) -> None:
    began = time.monotonic()
    assert watch(lambda: 7).wait(WAIT)
    assert time.monotonic() - began >= STUCK_S


def test_work_that_moves_is_left_alone(watch: Watch) -> None:
    steps = iter(range(1_000_000))
    assert not watch(lambda: next(steps)).wait(5 * STUCK_S)


def test_having_nothing_to_do_is_not_being_stuck(watch: Watch) -> None:
    assert not watch(lambda: None).wait(5 * STUCK_S)


def test_a_process_that_was_frozen_is_not_stuck_when_it_goes_on(watch: Watch) -> None:
    """Seen from inside, a freeze is one very long tick."""
    seen = [1, 1]  # one tick with no progress lasts long, then work goes on

    def progress() -> int:
        if not seen:
            return time.monotonic_ns()
        if len(seen) == 1:
            time.sleep(5 * STUCK_S)
        return seen.pop()

    assert not watch(progress).wait(10 * STUCK_S)


def test_a_stopped_watchdog_is_silent() -> None:
    barked = threading.Event()
    dog = Watchdog(lambda: 7, STUCK_S, barked.set)
    dog.start()
    dog.stop()
    assert not barked.wait(3 * STUCK_S)
