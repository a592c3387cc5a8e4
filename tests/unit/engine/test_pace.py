"""Large pieces of Python's work: one at a time, and a quarter of the time while another caller is about."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from qwen_allinone.engine import Pace
from qwen_allinone.errors import ServerBusy


class Clock:
    """Time that passes by working and sleeping only. `slept`: each sleep, in order."""

    def __init__(self) -> None:
        self.now = self.computed = 0.0
        self.slept: list[float] = []

    def work(self, seconds: float) -> None:
        self.now += seconds
        self.computed += seconds

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def pace(self, others_about: Callable[[str | None], bool] = lambda caller: True) -> Pace:
        return Pace(others_about, clock=lambda: self.now, work_clock=lambda: self.computed, sleep=self.sleep)


def test_pieces_take_a_quarter_of_the_time_beside_another_caller() -> None:
    clock = Clock()
    pace = clock.pace()
    for _ in range(100):
        with pace.piece("alice"):
            clock.work(0.002)
    assert clock.computed == pytest.approx(0.2)
    assert clock.now == pytest.approx(0.2 + 99 * 0.006), "three times as long as each took, but for the last"


def test_alone_nobody_rests() -> None:
    clock = Clock()
    pace = clock.pace(lambda caller: caller != "alice")
    for _ in range(10):
        pace.rest("alice")
        with pace.piece("alice"):
            clock.work(0.002)
    assert clock.slept == []


def test_what_one_caller_has_done_no_other_rests_for() -> None:
    clock = Clock()
    pace = clock.pace()
    pace.worked("alice", 0.02)
    pace.rest("bob")
    with pace.piece("carol"):
        pass
    assert clock.slept == []
    pace.rest("alice")
    assert clock.slept == [pytest.approx(0.06)]


def test_a_rest_is_bounded_however_long_the_work_was() -> None:
    clock = Clock()
    pace = clock.pace()
    for _ in range(10):
        pace.worked("alice", 5.0)
    pace.rest("alice")
    assert clock.slept == [pytest.approx(0.25)]


def test_only_one_thread_of_a_caller_rests_before_a_large_body() -> None:
    inside, go_on = threading.Event(), threading.Event()

    def sleep(seconds: float) -> None:
        inside.set()
        assert go_on.wait(60.0)

    pace = Pace(lambda caller: True, clock=lambda: 0.0, sleep=sleep)
    pace.worked("alice", 0.02)
    resting = threading.Thread(target=pace.rest, args=("alice",))
    resting.start()
    assert inside.wait(60.0)
    with pytest.raises(ServerBusy):
        pace.rest("alice")
    go_on.set()
    resting.join(60.0)
    pace.rest("alice")  # nobody is there before it


def test_pieces_are_done_one_at_a_time() -> None:
    pace, at_once, most = Pace(lambda caller: False), 0, 0

    def do() -> None:
        nonlocal at_once, most
        for _ in range(20):
            with pace.piece(None):
                at_once += 1
                most = max(most, at_once)
                time.sleep(0.0005)  # lets the others run
                at_once -= 1

    threads = [threading.Thread(target=do) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120.0)
    assert most == 1


def test_a_piece_that_fails_counts_and_lets_the_next_come() -> None:
    clock = Clock()
    pace = clock.pace()
    with pytest.raises(ValueError), pace.piece("alice"):
        clock.work(0.01)
        raise ValueError
    with pace.piece("alice"):
        pass
    assert clock.slept == [pytest.approx(0.03)]


def test_callers_whose_rest_is_over_are_forgotten() -> None:
    clock = Clock()
    pace = clock.pace()
    for number in range(5000):
        pace.worked(f"caller {number}", 0.001)
        clock.now += 0.01
    assert len(pace._free_at) <= 1000
