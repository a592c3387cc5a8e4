"""Two real workers behind keys and limits, counting together over a real Redis or Valkey."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from qwen_allinone.access import keys
from tests.e2e.conftest import Reply, Service, StartService, assert_is_chat, until
from tests.e2e.test_starting import assert_stops_with_one_line
from tests.support import forked
from tests.support.redis_server import BINARY, WHY_NOT, RedisServer
from tests.support.tokens import AUDIENCE, ISSUER, claims, key_file, sign

needs_redis = pytest.mark.skipif(BINARY is None, reason=WHY_NOT)


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def tasks(service: Service, key: str, path: str = "/v1/tasks") -> Reply:
    return service.ask("GET", path, X_API_Key=key)


def per_worker(service: Service, ask: int, key: str) -> dict[int, list[int]]:
    """Statuses of `ask` requests to each of the two workers, the other being stopped meanwhile."""
    one, other = service.workers
    answered: dict[int, list[int]] = {}
    for asked, stopped in ((one, other), (other, one)):
        os.kill(stopped, signal.SIGSTOP)
        try:
            answered[asked] = [tasks(service, key).status for _ in range(ask)]
        finally:
            os.kill(stopped, signal.SIGCONT)
    return answered


@needs_redis
def test_two_workers_share_one_count_of_each_key(
    start_service: StartService, redis: RedisServer, keys_file: Path
) -> None:
    alice, bob = keys.add(keys_file, "alice"), keys.add(keys_file, "bob")
    service = start_service(
        QAIO_WORKERS="2", QAIO_RATE_REQUESTS="6", QAIO_REDIS_URL=redis.url, QAIO_API_KEYS_FILE=str(keys_file)
    )
    one, other = per_worker(service, 4, alice).values()
    assert one == [200] * 4
    assert other == [200] * 2 + [429] * 2
    refused = tasks(service, alice)
    assert refused.status == 429 and 1 <= int(refused.headers["Retry-After"]) <= 60
    assert refused.json["error"]["code"] == "rate_limited"
    assert tasks(service, bob).headers["X-RateLimit-Remaining"] == "5"
    assert service.ask("GET", "/readyz").status == 200
    assert service.ask("GET", "/nope").status == 401


@needs_redis
@pytest.mark.parametrize("fault", ["killed", "frozen", "read-only"])
def test_while_redis_is_away_every_request_is_answered_and_limits_go_on(
    start_service: StartService, redis: RedisServer, fault: str
) -> None:
    service = start_service(QAIO_RATE_REQUESTS="40", QAIO_RATE_TOKENS="100000", QAIO_REDIS_URL=redis.url)
    replies = [service.chat("今天很开心") for _ in range(2)]
    if fault == "killed":
        redis.kill()
    elif fault == "frozen":
        redis.freeze()
    else:
        redis.set_read_only(True)
    replies += [service.chat("今天很开心") for _ in range(3)]
    for reply in replies:
        assert_is_chat(reply)
    left = [int(reply.headers["X-RateLimit-Remaining"]) for reply in replies]
    assert left == [39, 38, 37, 36, 35]
    statuses = {service.ask("GET", "/v1/tasks").status for _ in range(50)}
    assert statuses == {200, 429}
    assert service.log.count("this worker counts for itself") == 1
    if fault == "killed":
        redis.start()
    elif fault == "frozen":
        redis.thaw()
    else:
        redis.set_read_only(False)

    def rejoined() -> bool:
        assert service.ask("GET", "/v1/tasks").status in (200, 429)
        return "workers count together" in service.log

    assert until(rejoined, "Redis is asked again") < 10
    assert "Traceback" not in service.log and redis.url not in service.log


def test_without_redis_two_workers_count_apart_and_the_log_says_so(
    start_service: StartService, keys_file: Path
) -> None:
    alice = keys.add(keys_file, "alice")
    service = start_service(QAIO_WORKERS="2", QAIO_RATE_REQUESTS="3", QAIO_API_KEYS_FILE=str(keys_file))
    assert list(per_worker(service, 4, alice).values()) == [[200] * 3 + [429]] * 2
    assert "set QAIO_REDIS_URL" in service.log


def test_keys_made_and_removed_on_the_command_line_hold_in_all_workers_at_once(
    start_service: StartService, keys_file: Path
) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("QAIO_")}
    environment["QAIO_API_KEYS_FILE"] = str(keys_file)

    def command(*arguments: str) -> str:
        done = forked.run("keys", *arguments, environment=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    alice = command("new", "alice")
    service = start_service(QAIO_WORKERS="2", QAIO_API_KEYS_FILE=str(keys_file))
    bob = command("new", "bob")
    assert command("list").split() == ["alice", "bob"]
    assert [tasks(service, key).status for key in (alice, bob, alice, bob, "x") * 2] == [200, 200, 200, 200, 401] * 2
    command("remove", "bob")
    assert {tasks(service, bob).status for _ in range(8)} == {401}
    assert {tasks(service, alice).status for _ in range(8)} == {200}
    for key in (alice, bob):
        assert key not in service.log and not re.search(rf"{key[-12:]}", service.log)


def test_a_worker_killed_while_the_file_is_broken_does_not_take_the_service_down(
    start_service: StartService, keys_file: Path
) -> None:
    alice = keys.add(keys_file, "alice")
    service = start_service(QAIO_API_KEYS_FILE=str(keys_file))
    assert tasks(service, alice).status == 200
    good = keys_file.read_bytes()
    keys_file.write_bytes(b"alice: sha256:")
    assert tasks(service, alice).status == 200
    killed = service.workers[0]
    os.kill(killed, signal.SIGKILL)
    until(lambda: service.log.count("ready: model") == 2, "the new worker has loaded")
    assert tasks(service, alice).status == 401, "what it never read it cannot believe"
    keys_file.write_bytes(good)
    assert tasks(service, alice).status == 200
    assert service.process.poll() is None


def test_tokens_are_taken_by_the_real_server(start_service: StartService, tmp_path: Path) -> None:
    (tmp_path / "jwt.pem").write_bytes(key_file("ES256"))
    service = start_service(
        ready=False,
        QAIO_JWT_ALGORITHM="ES256",
        QAIO_JWT_KEY_FILE=str(tmp_path / "jwt.pem"),
        QAIO_JWT_ISSUER=ISSUER,
        QAIO_JWT_AUDIENCE=AUDIENCE,
    )
    until(lambda: service.answers("/livez", 200), "the service answers")
    good = service.ask("GET", "/v1/tasks", Authorization=f"Bearer {sign('ES256', claims())}")
    old = service.ask("GET", "/v1/tasks", Authorization=f"Bearer {sign('ES256', claims(exp=int(time.time()) - 60))}")
    assert (good.status, old.status) == (200, 401)
    assert old.headers["WWW-Authenticate"].endswith('error="invalid_token"')


def test_a_forged_forwarded_for_changes_nothing_and_a_trusted_one_counts(start_service: StartService) -> None:
    service = start_service(ready=False, QAIO_RATE_REQUESTS="2")
    until(lambda: service.answers("/livez", 200), "the service answers")
    forged = [service.ask("GET", "/v1/tasks", X_Forwarded_For=f"198.51.100.{n}").status for n in range(4)]
    assert forged == [200, 200, 429, 429]
    behind = start_service(ready=False, QAIO_RATE_REQUESTS="2", QAIO_TRUSTED_PROXIES="127.0.0.0/8,::1")
    until(lambda: behind.answers("/livez", 200), "the service answers")
    clients = [
        behind.ask("GET", "/v1/tasks", X_Forwarded_For=f"1.1.1.{n}, 198.51.100.{n % 2}").status for n in range(6)
    ]
    assert clients == [200] * 4 + [429] * 2


BROKEN_STARTS: dict[str, tuple[dict[str, str], list[str]]] = {
    "no file of keys": ({"QAIO_API_KEYS_FILE": "{}/none"}, ["QAIO_API_KEYS_FILE", "/none: cannot be read: No such file"]),
    "a broken file of keys": ({"QAIO_API_KEYS_FILE": "{}/broken"}, ["QAIO_API_KEYS_FILE", "/broken: line 1"]),
    "an unset variable for a file": ({"QAIO_API_KEYS_FILE": ""}, ["QAIO_API_KEYS_FILE", "cannot be read"]),
    "half of the tokens' settings": ({"QAIO_JWT_ALGORITHM": "RS256"}, ["QAIO_JWT_KEY_FILE, QAIO_JWT_ISSUER, QAIO_JWT_AUDIENCE not set"]),
    "a short secret": (
        {"QAIO_JWT_ALGORITHM": "HS256", "QAIO_JWT_KEY_FILE": "{}/broken", "QAIO_JWT_ISSUER": "a", "QAIO_JWT_AUDIENCE": "b"},
        ["QAIO_JWT_KEY_FILE", "32 at least"],
    ),
    "a URL with a password": ({"QAIO_REDIS_URL": "http://:hunter2@h"}, ["QAIO_REDIS_URL=***"]),
}  # fmt: skip


@pytest.mark.parametrize(("given", "words"), list(BROKEN_STARTS.values()), ids=list(BROKEN_STARTS))
def test_a_broken_guard_stops_the_start_and_is_named(
    start_service: StartService, tmp_path: Path, given: dict[str, str], words: list[str]
) -> None:
    (tmp_path / "broken").write_text("hunter2\n")
    service = start_service(ready=False, **{name: value.format(tmp_path) for name, value in given.items()})
    assert_stops_with_one_line(service, *words)
    assert "hunter2" not in service.log
