"""The answer cache: bounded, forgetful, and of equal requests only one computes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_allinone.state.cache import MemoryCache, SingleFlightCache, key_of
from tests.support.clock import Clock

WAIT_S = 30.0


class Endless:
    """Waits for ever, and says when it was asked whether to."""

    def __init__(self) -> None:
        self.asked = threading.Event()

    def check(self) -> None:
        self.asked.set()


class Ended(Exception):
    pass


class NoPatience(Endless):
    def check(self) -> None:
        raise Ended


def good(_: bytes) -> bool:
    return True


class Computing:
    """A computation that the test ends."""

    def __init__(self, value: bytes = b"v") -> None:
        self.calls = 0
        self.begun = threading.Semaphore(0)
        self.answers: list[bytes | Exception] = []
        self._value = value
        self._go = threading.Semaphore(0)

    def __call__(self) -> bytes:
        self.calls += 1
        answer = self.answers.pop(0) if self.answers else self._value
        self.begun.release()
        assert self._go.acquire(timeout=WAIT_S)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def end_one(self) -> None:
        self._go.release()


def test_what_was_kept_is_found_until_its_time_is_over() -> None:
    clock = Clock()
    memory = MemoryCache(10_000, 60, clock)
    memory.put("a", b"1")
    clock.now += 59.9
    assert memory.get("a") == b"1" and memory.get("b") is None
    clock.now += 0.1
    assert memory.get("a") is None
    assert (len(memory), memory._bytes) == (0, 0)


def test_the_least_recently_used_go_first_when_there_are_too_many_bytes() -> None:
    memory = MemoryCache(3 * 500, 60)
    for key in "abc":
        memory.put(key, b"x" * 100)
    assert memory.get("a")
    memory.put("d", b"x" * 100)
    assert [memory.get(key) is not None for key in "abcd"] == [True, False, True, True]


def test_a_value_larger_than_the_cache_pushes_nothing_out() -> None:
    memory = MemoryCache(1000, 60)
    memory.put("a", b"1")
    memory.put("b", b"x" * 1000)
    assert memory.get("a") == b"1" and memory.get("b") is None


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 900))))
def test_bytes_used_are_those_of_what_is_there_and_never_too_many(puts: list[tuple[str, int]]) -> None:
    memory = MemoryCache(3000, 60)
    for key, size in puts:
        memory.put(key, b"x" * size)
        assert memory._bytes <= 3000
    held = [memory.get(key) for key in "abcdefgh"]
    assert memory._bytes == sum(400 + len(value) for value in held if value is not None)


@given(st.lists(st.text(max_size=4), max_size=4), st.lists(st.text(max_size=4), max_size=4))
def test_keys_are_equal_only_for_equal_parts(one: list[str], other: list[str]) -> None:
    assert (key_of(*one) == key_of(*other)) == (one == other)


def test_where_a_part_ends_is_part_of_the_key_and_any_text_has_one() -> None:
    assert len({key_of("ab", "c"), key_of("a", "bc"), key_of("abc"), key_of("abc", ""), key_of("\ud83d")}) == 5


@pytest.fixture
def cache() -> SingleFlightCache:
    return SingleFlightCache(100_000, 60)


def later(
    pool: ThreadPoolExecutor, cache: SingleFlightCache, compute: Callable[[], bytes], patience: Endless
) -> Future[tuple[bytes, bool]]:
    return pool.submit(cache.fetch, "k", good, compute, patience)


def test_of_ten_at_once_one_computes_and_a_later_one_finds_it(cache: SingleFlightCache) -> None:
    compute = Computing()
    with ThreadPoolExecutor(10) as pool:
        patience = [Endless() for _ in range(10)]
        first = later(pool, cache, compute, patience[0])
        assert compute.begun.acquire(timeout=WAIT_S)
        rest = [later(pool, cache, compute, each) for each in patience[1:]]
        assert all(each.asked.wait(WAIT_S) for each in patience[1:]), "they wait"
        compute.end_one()
        assert first.result(WAIT_S) == (b"v", False)
        assert [each.result(WAIT_S) for each in rest] == [(b"v", True)] * 9
    assert cache.fetch("k", good, compute, Endless()) == (b"v", True)
    assert compute.calls == 1


def test_different_keys_do_not_wait_for_each_other(cache: SingleFlightCache) -> None:
    compute = Computing()
    with ThreadPoolExecutor(1) as pool:
        slow = later(pool, cache, compute, Endless())
        assert compute.begun.acquire(timeout=WAIT_S)
        assert cache.fetch("other", good, lambda: b"o", Endless()) == (b"o", False)
        compute.end_one()
        slow.result(WAIT_S)


def test_when_the_leader_fails_one_who_waits_leads_and_the_rest_go_on_waiting(cache: SingleFlightCache) -> None:
    compute = Computing()
    compute.answers = [Ended(), b"second"]
    with ThreadPoolExecutor(5) as pool:
        leader = later(pool, cache, compute, Endless())
        assert compute.begun.acquire(timeout=WAIT_S)
        patience = [Endless() for _ in range(4)]
        rest = [later(pool, cache, compute, each) for each in patience]
        assert all(each.asked.wait(WAIT_S) for each in patience)
        compute.end_one()
        with pytest.raises(Ended):
            leader.result(WAIT_S)
        assert compute.begun.acquire(timeout=WAIT_S)
        assert not any(each.done() for each in rest)
        compute.end_one()
        assert sorted(each.result(WAIT_S) for each in rest) == [(b"second", False)] + [(b"second", True)] * 3
    assert compute.calls == 2


def test_failures_are_not_kept(cache: SingleFlightCache) -> None:
    def fail() -> bytes:
        raise Ended

    for _ in range(2):
        with pytest.raises(Ended):
            cache.fetch("k", good, fail, Endless())
    assert cache.fetch("k", good, lambda: b"1", Endless()) == (b"1", False)


def test_one_who_waits_gives_up_by_himself_and_harms_nobody(cache: SingleFlightCache) -> None:
    compute = Computing()
    with ThreadPoolExecutor(2) as pool:
        leader = later(pool, cache, compute, Endless())
        assert compute.begun.acquire(timeout=WAIT_S)
        with pytest.raises(Ended):
            later(pool, cache, compute, NoPatience()).result(WAIT_S)
        assert not leader.done()
        compute.end_one()
        assert leader.result(WAIT_S) == (b"v", False)


def test_those_who_wait_get_even_a_value_too_large_to_keep() -> None:
    cache = SingleFlightCache(100, 60)
    compute = Computing(b"x" * 200)
    with ThreadPoolExecutor(2) as pool:
        patience = Endless()
        leader = later(pool, cache, compute, Endless())
        assert compute.begun.acquire(timeout=WAIT_S)
        follower = later(pool, cache, compute, patience)
        assert patience.asked.wait(WAIT_S)
        compute.end_one()
        assert (leader.result(WAIT_S)[1], follower.result(WAIT_S)) == (False, (b"x" * 200, True))
    assert compute.calls == 1


def test_what_was_put_is_found(cache: SingleFlightCache) -> None:
    cache.put("k", b"fresh")
    assert cache.fetch("k", good, lambda: b"never", Endless()) == (b"fresh", True)


def test_a_redis_that_is_nowhere_costs_a_moment_and_nothing_else() -> None:
    cache = SingleFlightCache(10_000, 60, "redis://127.0.0.1:9")
    began = time.monotonic()
    assert cache.fetch("k", good, lambda: b"1", Endless()) == (b"1", False)
    assert cache.fetch("k", good, lambda: b"2", Endless()) == (b"1", True)
    assert time.monotonic() - began < 5
