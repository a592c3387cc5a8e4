"""The answer cache over a real Redis or Valkey: shared, locked, poisoned, killed, frozen and back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from qwen_allinone import redis_link
from qwen_allinone.state import cache as module
from qwen_allinone.state.cache import SingleFlightCache
from tests.integration.conftest import StartServer, until
from tests.integration.test_http_cache import ask, cached
from tests.integration.test_redis import FAULTS, REJOIN_S
from tests.support.redis_server import BINARY, WHY_NOT, RedisServer

pytestmark = pytest.mark.skipif(BINARY is None, reason=WHY_NOT)

WAIT_S = 30.0


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine an answer of Redis may take longer than a request would wait, and a lock may end too early."""
    monkeypatch.setattr(redis_link, "_TIMEOUT_S", 10.0)
    monkeypatch.setattr(module, "_LOCK_S", 300.0)


class Patient:
    def __init__(self) -> None:
        self.asked = threading.Event()

    def check(self) -> None:
        self.asked.set()


def worker(redis: RedisServer, ttl_s: float = 60) -> SingleFlightCache:
    return SingleFlightCache(100_000, ttl_s, redis.url)


def good(value: bytes) -> bool:
    return value.startswith(b"v")


def fetch(cache: SingleFlightCache, compute: Callable[[], bytes], key: str = "k") -> tuple[bytes, bool]:
    return cache.fetch(key, good, compute, Patient())


def never() -> bytes:
    raise AssertionError("it is there")


def names(redis: RedisServer) -> list[bytes]:
    return sorted(redis.execute("KEYS", "*"))  # type: ignore[call-overload, no-any-return]


@pytest.mark.usefixtures("unhurried")
def test_what_one_worker_computed_another_finds_and_no_lock_is_left(redis: RedisServer) -> None:
    assert fetch(worker(redis), lambda: b"v1") == (b"v1", False)
    other = worker(redis)
    assert fetch(other, never) == (b"v1", True)
    assert names(redis) == [b"qaio:answer:{k}"]
    assert 0 < int(redis.execute("PTTL", "qaio:answer:{k}")) <= 60_000  # type: ignore[call-overload]
    redis.execute("FLUSHALL")
    assert fetch(other, never) == (b"v1", True), "it has it in memory too"


@pytest.mark.usefixtures("unhurried")
def test_two_workers_at_once_compute_once(redis: RedisServer) -> None:
    one, other, patient = worker(redis), worker(redis), Patient()
    begun, go = threading.Event(), threading.Event()

    def compute() -> bytes:
        begun.set()
        assert go.wait(WAIT_S)
        return b"v1"

    with ThreadPoolExecutor(2) as pool:
        leader = pool.submit(fetch, one, compute)
        assert begun.wait(WAIT_S)
        follower = pool.submit(other.fetch, "k", good, never, patient)
        assert patient.asked.wait(WAIT_S)
        go.set()
        assert leader.result(WAIT_S) == (b"v1", False)
        assert follower.result(WAIT_S) == (b"v1", True)


@pytest.mark.usefixtures("unhurried")
def test_when_one_worker_fails_the_other_leads_at_once(redis: RedisServer) -> None:
    one, other, patient = worker(redis), worker(redis), Patient()
    begun, go = threading.Event(), threading.Event()

    def fail() -> bytes:
        begun.set()
        assert go.wait(WAIT_S)
        raise RuntimeError

    with ThreadPoolExecutor(2) as pool:
        leader = pool.submit(fetch, one, fail)
        assert begun.wait(WAIT_S)
        follower = pool.submit(other.fetch, "k", good, lambda: b"v2", patient)
        assert patient.asked.wait(WAIT_S)
        go.set()
        with pytest.raises(RuntimeError):
            leader.result(WAIT_S)
        assert follower.result(WAIT_S) == (b"v2", False)


@pytest.mark.usefixtures("unhurried")
def test_a_worker_that_died_holds_the_others_up_only_until_its_lock_ends(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = time.monotonic()
    redis.execute("SET", "qaio:answer:{k}:lock", "somebody", "PX", "1500")
    assert fetch(worker(redis), lambda: b"v1") == (b"v1", False)
    assert time.monotonic() - began > 1
    monkeypatch.setattr(module, "_LOCK_S", 0.2)
    slow = worker(redis)
    assert fetch(slow, lambda: time.sleep(0.5) or b"v2", "slow") == (b"v2", False)  # type: ignore[func-returns-value]
    assert fetch(worker(redis), never, "slow") == (b"v2", True)


@pytest.mark.usefixtures("unhurried")
def test_a_lock_that_has_gone_to_another_is_left_to_it(redis: RedisServer) -> None:
    def compute() -> bytes:
        redis.execute("SET", "qaio:answer:{k}:lock", "another")
        return b"v1"

    assert fetch(worker(redis), compute) == (b"v1", False)
    assert names(redis) == [b"qaio:answer:{k}", b"qaio:answer:{k}:lock"]


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("poison", ["", "x", "\x00" * 1000, "x" * 1_000_000])
def test_a_poisoned_value_counts_as_none_and_is_replaced(redis: RedisServer, poison: str) -> None:
    redis.execute("SET", "qaio:answer:{k}", poison)
    assert fetch(worker(redis), lambda: b"v1") == (b"v1", False)
    assert fetch(worker(redis), never) == (b"v1", True)


@pytest.mark.usefixtures("unhurried")
def test_a_value_of_another_kind_counts_as_none_and_is_replaced(redis: RedisServer) -> None:
    redis.execute("RPUSH", "qaio:answer:{k}", "a", "b")
    assert fetch(worker(redis), lambda: b"v1") == (b"v1", False)
    assert fetch(worker(redis), never) == (b"v1", True)


@pytest.mark.usefixtures("unhurried")
def test_answers_grow_old_in_redis_too(redis: RedisServer) -> None:
    fetch(worker(redis, 0.3), lambda: b"v1")
    until(lambda: redis.execute("DBSIZE") == 0)


@pytest.mark.parametrize("fault", list(FAULTS))
def test_answers_go_on_through_a_fault_and_workers_share_again_after_it(
    redis: RedisServer, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "qwen_allinone")
    breaks, mends = FAULTS[fault]
    one = worker(redis)
    fetch(one, lambda: b"v1", "before")
    breaks(redis)
    began = time.monotonic()
    for number in range(50):
        key = f"during-{number}"
        assert fetch(one, lambda: b"v2", key) == (b"v2", False)
        assert fetch(one, never, key) == (b"v2", True)
    assert fetch(one, never, "before") == (b"v1", True)
    assert time.monotonic() - began < 10
    lost = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(lost) == 1 and lost[0].startswith("cache: Redis does not answer"), "said once, not for each request"
    mends(redis)
    counter = iter(range(10_000))

    def shared_again() -> bool:
        key = f"after-{next(counter)}"
        fetch(one, lambda: b"v3", key)
        return fetch(worker(redis), lambda: b"v4", key) == (b"v3", True)

    until(shared_again, REJOIN_S)
    assert "workers share their answers" in caplog.text


def test_over_http_answers_are_shared_poisoned_and_survive_the_server(
    start_server: StartServer, redis: RedisServer
) -> None:
    one, other = (start_server(QAIO_REDIS_URL=redis.url) for _ in range(2))
    assert [cached(ask(one)), cached(ask(other))] == ["MISS", "HIT"]
    third = start_server(QAIO_REDIS_URL=redis.url)
    for name in names(redis):
        redis.execute("SET", name.decode(), '{"reason":"label","label":7}')
    assert [cached(ask(third)), cached(ask(third))] == ["MISS", "HIT"]
    redis.freeze()
    assert [cached(ask(one)), cached(ask(one, "新的"))] == ["HIT", "MISS"]
    redis.thaw()
    redis.kill()
    assert [cached(ask(other)), cached(ask(other, "又一个"))] == ["HIT", "MISS"]


@pytest.mark.usefixtures("unhurried")
def test_answers_of_another_model_or_prompt_are_not_taken(
    start_server: StartServer, redis: RedisServer, prompts_folder: Path, tmp_path: Path
) -> None:
    import shutil

    assert cached(ask(start_server(QAIO_REDIS_URL=redis.url))) == "MISS"
    assert cached(ask(start_server(QAIO_REDIS_URL=redis.url, QAIO_WEIGHTS="int8"))) == "MISS"
    prompts = Path(shutil.copytree(prompts_folder, tmp_path / "prompts"))
    file = prompts / "sentiment" / "prompt.md"
    file.write_text(file.read_text("utf-8").replace("不解释。", "不作解释。"), "utf-8")
    assert cached(ask(start_server(QAIO_REDIS_URL=redis.url, QAIO_PROMPTS=str(prompts)))) == "MISS"
