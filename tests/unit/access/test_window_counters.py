"""Counts of one process: exact among threads, on a clock that nobody can set, and bounded in memory."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from qwen_allinone.access.window_counters import MemoryRateCounters, RateCounters, Window
from tests.support.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def windows(clock: Clock) -> MemoryRateCounters:
    return MemoryRateCounters(60, clock)


def test_a_window_counts_up_and_begins_anew_when_it_ends(windows: MemoryRateCounters, clock: Clock) -> None:
    assert windows.add("a", 1) == Window(1, 60)
    clock.now += 59.5
    assert windows.add("a", 5) == Window(6, 0.5)
    clock.now += 0.5
    assert windows.add("a", 2) == Window(2, 60)


def test_callers_are_counted_apart(windows: MemoryRateCounters) -> None:
    windows.add("a", 7)
    assert windows.add("b", 1).used == 1


def test_a_look_counts_nothing(windows: MemoryRateCounters) -> None:
    windows.add("a", 3)
    assert [windows.add("a", 0).used for _ in range(3)] == [3, 3, 3]


def test_counts_seen_elsewhere_are_gone_on_from(windows: MemoryRateCounters) -> None:
    windows.take_over("a", Window(41, 12))
    assert windows.add("a", 1) == Window(42, 12)


def test_callers_who_never_come_back_do_not_pile_up(windows: MemoryRateCounters, clock: Clock) -> None:
    for second in range(600):
        clock.now += 1
        for number in range(10):
            windows.add(f"{second}.{number}", 1)
    assert len(windows) <= 2 * 60 * 10


def test_a_sweep_forgets_nobody_whose_window_is_open(windows: MemoryRateCounters, clock: Clock) -> None:
    clock.now += 59
    windows.add("a", 5)
    clock.now += 2  # past the sweep
    assert windows.add("b", 1).used == 1
    assert windows.add("a", 1) == Window(6, 58)


def test_no_count_is_lost_among_threads() -> None:
    windows = MemoryRateCounters(600)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: windows.add("a", 1), range(4000)))
    assert windows.add("a", 0).used == 4000


def test_a_clock_set_by_an_hour_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    windows = RateCounters(60)
    windows.add("a", 1)
    real = time.time
    for jump in (-3600, 3600):
        monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
        window = windows.add("a", 1)
        assert 0 < window.resets_in_s <= 60
    assert window.used == 3
