"""The answer cache of two real workers: with Redis they share answers and computing, without it each has its own."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.conftest import Reply, Service, services, until
from tests.support.redis_server import RedisServer

TEN = 10


@pytest.fixture(scope="module")
def pair(
    shared_redis: RedisServer, demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """Two workers with Redis; their log has a line a request, with the worker's process id."""
    with services(tmp_path_factory.mktemp("pair")) as start:
        yield start(QAIO_WORKERS="2", QAIO_REDIS_URL=shared_redis.url, QAIO_LOG_FORMAT="json")


@pytest.fixture(scope="module")
def apart(demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Two workers without Redis."""
    with services(tmp_path_factory.mktemp("apart")) as start:
        yield start(QAIO_WORKERS="2", QAIO_LOG_FORMAT="json")


def ask(service: Service, text: str, **headers: str) -> Reply:
    body = json.dumps({"text": text}, ensure_ascii=False).encode()
    reply = service.ask("POST", "/v1/tasks/sentiment", body, Content_Type="application/json", **headers)
    assert reply.status == 200, reply.data
    return reply


def ask_at_once(service: Service, text: str) -> Counter[str]:
    with ThreadPoolExecutor(TEN) as pool:
        replies = list(pool.map(lambda _: ask(service, text), range(TEN)))
    assert len({reply.data for reply in replies}) == 1
    return Counter(reply.headers["X-Cache"] for reply in replies)


def computed_by(service: Service, since: int) -> dict[int, int]:
    """How many answers each worker has computed, by what it logged after the position `since`."""
    lines = [json.loads(line) for line in service.log[since:].splitlines() if '"event": "request"' in line]
    return Counter(line["pid"] for line in lines if line["cache"] == "MISS")


def each_worker(service: Service, text: str) -> list[str]:
    """What each of the two workers says, the other being stopped meanwhile."""
    one, other = service.workers
    found = []
    for stopped in (other, one):
        os.kill(stopped, signal.SIGSTOP)
        try:
            found.append(ask(service, text).headers["X-Cache"])
        finally:
            os.kill(stopped, signal.SIGCONT)
    return found


def shared(service: Service) -> bool:
    """Whether one worker knows what the other has just computed."""
    return each_worker(service, f"快递早到了 {os.urandom(4).hex()}") == ["MISS", "HIT"]


def test_ten_equal_requests_at_once_are_computed_once_by_two_workers(pair: Service) -> None:
    for attempt in range(5):
        since = len(pair.log)
        found = ask_at_once(pair, f"今天心情特别差，工作也不顺利，第{attempt}次")
        until(lambda since=since: pair.log[since:].count('"event": "request"') >= TEN, "all are logged")  # type: ignore[misc]
        assert sum(computed_by(pair, since).values()) == found["MISS"]
        if found == {"MISS": 1, "HIT": TEN - 1}:
            return
        # On a machine so busy that Redis is late, workers go on by themselves for a while.
        assert "Redis does not answer" in pair.log, f"{found}, though Redis answered in time"
        until(lambda: shared(pair), "the workers share again")
    pytest.fail("Redis never answered in time")


def test_what_one_worker_computed_the_other_knows(pair: Service) -> None:
    until(lambda: shared(pair), "the second worker knows what the first has computed")


def test_without_redis_each_worker_computes_for_itself_and_then_knows(apart: Service) -> None:
    since = len(apart.log)
    found = ask_at_once(apart, "今天心情特别差，工作也不顺利")
    until(lambda: apart.log[since:].count('"event": "request"') >= TEN, "all are logged")
    computed = computed_by(apart, since)
    assert 1 <= found["MISS"] == sum(computed.values()) <= 2
    assert set(computed.values()) == {1}, "within a worker once"
    assert each_worker(apart, "快递早到了") == ["MISS", "MISS"]
    assert each_worker(apart, "快递早到了") == ["HIT", "HIT"]


def test_no_store_goes_past_the_cache_of_both(apart: Service) -> None:
    found = [ask(apart, "别记住这句话", Cache_Control="no-store").headers["X-Cache"] for _ in range(4)]
    assert found == ["MISS"] * 4
    assert each_worker(apart, "别记住这句话") == ["MISS", "MISS"]


def test_while_redis_is_away_every_request_is_answered(pair: Service, shared_redis: RedisServer) -> None:
    """Last in this file: it leaves Redis empty."""
    ask(pair, "先记住这句")
    shared_redis.freeze()
    try:
        assert sum(ask_at_once(pair, "卡住的时候").values()) == TEN
    finally:
        shared_redis.thaw()
    shared_redis.kill()
    assert sum(ask_at_once(pair, "没有的时候").values()) == TEN
    shared_redis.start()
    until(lambda: shared(pair), "the workers share again")
    assert "Traceback" not in pair.log and shared_redis.url not in pair.log
