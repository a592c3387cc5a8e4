"""Counts over a real Redis or Valkey that is killed, frozen, made read-only and brought back."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable

import pytest

from qwen_allinone.access import RateCounters, Window
from tests.integration.conftest import StartServer, until
from tests.support.redis_server import BINARY, WHY_NOT, RedisServer

pytestmark = pytest.mark.skipif(BINARY is None, reason=WHY_NOT)

# A promise to operators is 0.1 s; the rest is for a busy machine.
HANG_S = 1.0
REJOIN_S = 5.0


def add(windows: RateCounters, key: str = "a", amount: int = 1) -> Window:
    """As `RateCounters.add`, and it must not hang."""
    began = time.monotonic()
    window = windows.add(key, amount)
    assert time.monotonic() - began < HANG_S
    return window


def shared(redis: RedisServer, key: str = "a") -> int:
    return int(redis.execute("GET", f"qaio:window:{key}") or 0)  # type: ignore[call-overload]


def test_two_workers_share_one_count(redis: RedisServer) -> None:
    one, other = RateCounters(60, redis.url), RateCounters(60, redis.url)
    assert [add(windows).used for windows in (one, other, one, other)] == [1, 2, 3, 4]
    assert add(other, amount=0).used == 4 == shared(redis)
    assert add(one, "b").used == 1
    assert 58 < add(one).resets_in_s <= 60


def test_a_window_ends_and_leaves_nothing_behind(redis: RedisServer) -> None:
    windows = RateCounters(0.3, redis.url)
    add(windows, amount=9)
    until(lambda: redis.execute("DBSIZE") == 0)
    assert add(windows).used == 1


@pytest.mark.parametrize("command", ["PEXPIRE {} 3660000", "PERSIST {}"])
def test_a_server_whose_clock_was_set_back_shuts_nobody_out(redis: RedisServer, command: str) -> None:
    windows = RateCounters(60, redis.url)
    add(windows)
    # What a clock set back by an hour makes of a time to live; and a key that lost it.
    redis.execute(*command.format("qaio:window:a").split())
    assert add(windows).resets_in_s <= 60
    assert int(redis.execute("PTTL", "qaio:window:a")) <= 60_000  # type: ignore[call-overload]


FAULTS: dict[str, tuple[Callable[[RedisServer], None], Callable[[RedisServer], None]]] = {
    "killed": (RedisServer.kill, RedisServer.start),
    "frozen": (RedisServer.freeze, RedisServer.thaw),
    "read-only": (lambda redis: redis.set_read_only(True), lambda redis: redis.set_read_only(False)),
    "asking for a password": (lambda redis: redis.ask_for_password(True), lambda redis: redis.ask_for_password(False)),
    "out of memory": (lambda redis: redis.fill_memory(True), lambda redis: redis.fill_memory(False)),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_counting_goes_on_through_a_fault_and_rejoins(
    redis: RedisServer, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "qwen_allinone")
    breaks, mends = FAULTS[fault]
    windows = RateCounters(60, redis.url)
    assert [add(windows).used for _ in range(3)] == [1, 2, 3]
    breaks(redis)
    assert [add(windows).used for _ in range(200)] == list(range(4, 204)), "on from what was counted together"
    lost = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(lost) == 1, "said once, not for each request"
    mends(redis)
    before = shared(redis, "probe")

    def rejoined() -> bool:
        add(windows, "probe")
        return shared(redis, "probe") > before

    until(rejoined, REJOIN_S)
    assert "workers count together" in caplog.text


def test_a_frozen_server_is_waited_for_by_few_requests_only(redis: RedisServer) -> None:
    windows = RateCounters(60, redis.url)
    add(windows)
    redis.freeze()
    began = time.monotonic()
    slow = 0
    while time.monotonic() - began < 5:
        at = time.monotonic()
        windows.add("a", 1)
        slow += time.monotonic() - at > 0.05
        time.sleep(0.01)
    assert 1 <= slow <= 8  # the first, one try every two seconds, and what a busy machine adds
    redis.thaw()


def test_one_request_tries_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        windows = RateCounters(60, f"redis://127.0.0.1:{mute.getsockname()[1]}")
        assert [add(windows).used for _ in range(5)] == [1, 2, 3, 4, 5]
        mute.settimeout(1)
        mute.accept()[0].close()
        with pytest.raises(TimeoutError):
            mute.accept()


def test_a_server_that_was_never_there_does_no_harm(redis: RedisServer) -> None:
    redis.kill()
    windows = RateCounters(60, redis.url)
    assert [add(windows).used for _ in range(5)] == [1, 2, 3, 4, 5]
    redis.start()
    until(lambda: add(windows) is not None and shared(redis) > 0, REJOIN_S)


@pytest.mark.parametrize(
    "url",
    ["redis://127.0.0.1:9", "redis://nobody.invalid:6379", "unix:///nowhere/redis.sock", "redis://" + "a" * 70 + ":1"],
)
def test_a_wrong_address_does_no_harm(url: str) -> None:
    windows = RateCounters(60, url)
    assert [windows.add("a", 1).used for _ in range(3)] == [1, 2, 3]


def test_a_caller_s_name_is_data_whatever_it_holds(redis: RedisServer) -> None:
    windows = RateCounters(60, redis.url)
    for name in ("a b", "a\r\nFLUSHALL\r\n", "键", "*", "{a}", "'", "]]"):
        assert [add(windows, name).used for _ in range(2)] == [1, 2]
    assert redis.execute("DBSIZE") == 7


def test_limits_hold_over_http_while_the_server_comes_and_goes(start_server: StartServer, redis: RedisServer) -> None:
    server = start_server(ready=False, QAIO_RATE_REQUESTS="6", QAIO_REDIS_URL=redis.url)
    codes = [server.client.get("/v1/tasks").status_code for _ in range(2)]
    redis.freeze()
    codes += [server.client.get("/v1/tasks").status_code for _ in range(2)]
    redis.thaw()
    redis.kill()
    codes += [server.client.get("/v1/tasks").status_code for _ in range(4)]
    assert codes == [200] * 6 + [429] * 2
