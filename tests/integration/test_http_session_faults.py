"""Conversations where their file or Redis is locked, corrupt, full or away: 503 for them, and for nobody else."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from werkzeug.test import TestResponse

from qwen_allinone.access import keys
from tests.integration.conftest import StartServer, until
from tests.integration.conversing import TEXTS, chat, new, stored
from tests.integration.test_http_errors import problem
from tests.support.postgres_server import PostgresServer
from tests.support.redis_server import BINARY, WHY_NOT, RedisServer


def locked(file: Path) -> Callable[[], None]:
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    return other.close


def corrupted(file: Path) -> Callable[[], None]:
    good = file.read_bytes()
    file.write_bytes(b"\xff" * len(good))

    def mend() -> None:
        for extra in file.parent.glob(f"{file.name}-*"):
            extra.unlink()
        # As an operator would: a copy of his own in its place.
        (file.parent / "copy").write_bytes(good)
        (file.parent / "copy").replace(file)

    return mend


@pytest.mark.parametrize("fault", [locked, corrupted])
def test_a_fault_of_the_file_is_a_503_for_conversations_and_none_for_others(
    start_server: StartServer, brief: str, tmp_path: Path, fault: Callable[[Path], Callable[[], None]]
) -> None:
    file = tmp_path / "s.db"
    server = start_server(QAIO_SESSIONS_FILE=str(file), QAIO_PROMPTS=brief)
    session = new(server, *TEXTS[:2])
    with closing(sqlite3.connect(file)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    mend = fault(file)
    assert list(chat(server, TEXTS[2]).get_json()) == ["sentiment", "response"]
    for fields in ({"session": True}, {"session_id": session, "stream": True}):
        answer = chat(server, TEXTS[2], **fields)
        assert answer.status_code == 503 and int(answer.headers["Retry-After"]) >= 1
        assert problem(answer, "/chat")["code"] == "sessions_unavailable"
    mend()
    assert chat(server, TEXTS[2], session_id=session).status_code == 200
    assert [turn["text"] for turn in stored(server, session)] == TEXTS[:3]


def test_a_file_that_fills_up_during_an_answer_makes_it_a_503_and_keeps_what_it_holds(
    start_server: StartServer, brief: str, tmp_path: Path
) -> None:
    server = start_server(QAIO_SESSIONS_FILE=str(tmp_path / "s.db"), QAIO_SESSIONS_MAX_MB="1", QAIO_PROMPTS=brief)
    session = new(server, TEXTS[0])
    with closing(sqlite3.connect(tmp_path / "s.db")) as db, db:
        (pages,), (bytes_each,) = (db.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "page_size"))
        left = 1_000_000 // bytes_each - pages
        db.execute("CREATE TABLE ballast (x)")
        db.execute("INSERT INTO ballast VALUES (zeroblob(?))", ((left - 2) * (bytes_each - 4),))
    asked, codes = 0, []
    while 503 not in codes:
        assert asked < 40
        answer = chat(server, "长" * 1000, session_id=session, stream=asked % 2 == 0)
        data = answer.data
        codes.append(503 if answer.status_code == 503 or b"sessions_unavailable" in data else answer.status_code)
        asked += 1
    assert b"event: done" not in data, "a stream whose turn is not kept does not say that it is done"
    assert len(stored(server, session)) == 1 + asked - 1
    assert chat(server, TEXTS[1]).status_code == 200
    assert server.client.delete(f"/v1/sessions/{session}").status_code == 200
    assert chat(server, TEXTS[0], session=True).status_code == 200, "what was deleted makes room"


def test_a_key_whose_share_is_full_is_a_429_for_it_alone(start_server: StartServer, brief: str, tmp_path: Path) -> None:
    file, held = tmp_path / "s.db", tmp_path / "keys"
    alice, bob = ({"X-API-Key": keys.add(held, name)} for name in ("alice", "bob"))
    server = start_server(QAIO_SESSIONS_FILE=str(file), QAIO_PROMPTS=brief, QAIO_API_KEYS_FILE=str(held))

    def ask(key: dict[str, str], **fields: object) -> TestResponse:
        return server.client.post("/chat", json={"text": TEXTS[0], **fields}, headers=key)

    session = ask(alice, session=True).get_json()["session_id"]
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("UPDATE owners SET bytes = 100000000")
    for fields in ({"session": True}, {"session_id": session, "stream": True}):
        refused = ask(alice, **fields)
        assert refused.status_code == 429 and problem(refused, "/chat")["code"] == "sessions_full"
    assert ask(alice).status_code == 200, "without a conversation"
    assert ask(bob, session=True).status_code == 200
    assert server.client.get(f"/v1/sessions/{session}", headers=alice).status_code == 200
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("UPDATE owners SET bytes = 1000 WHERE owner = 'alice'")
    assert ask(alice, session_id=session).status_code == 200


def test_a_place_that_cannot_be_written_to_is_a_warning_and_a_503_for_conversations(
    start_server: StartServer, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    server = start_server(QAIO_SESSIONS_FILE=str(tmp_path / "file" / "s.db"))
    assert "QAIO_SESSIONS_FILE" in caplog.text
    assert chat(server, TEXTS[0]).status_code == 200
    assert chat(server, TEXTS[0], session=True).status_code == 503


def test_a_worker_that_was_never_asked_for_a_session_makes_no_file(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(QAIO_SESSIONS_FILE=str(tmp_path / "folder" / "s.db"), QAIO_USAGE_DAYS="0")
    assert chat(server, TEXTS[0]).status_code == 200
    assert not (tmp_path / "folder").exists()


@pytest.mark.skipif(BINARY is None, reason=WHY_NOT)
@pytest.mark.parametrize("fault", ["frozen", "read-only", "out of memory"])
def test_a_fault_of_redis_is_a_503_for_conversations_and_none_for_others(
    start_server: StartServer, brief: str, tmp_path: Path, fault: str
) -> None:
    redis = RedisServer(tmp_path)
    try:
        server = start_server(QAIO_REDIS_URL=redis.url, QAIO_PROMPTS=brief)
        session = new(server, TEXTS[0])
        breaks, mends = {
            "frozen": (redis.freeze, redis.thaw),
            "read-only": (lambda: redis.set_read_only(True), lambda: redis.set_read_only(False)),
            "out of memory": (lambda: redis.fill_memory(True), lambda: redis.fill_memory(False)),
        }[fault]
        breaks()
        for fields in ({"session": True}, {"session_id": session}):
            answer = chat(server, TEXTS[1], **fields)
            assert answer.status_code == 503 and problem(answer, "/chat")["code"] == "sessions_unavailable"
        assert chat(server, TEXTS[1]).status_code == 200
        mends()
        until(lambda: chat(server, TEXTS[1], session_id=session).status_code == 200)
        assert [turn["text"] for turn in stored(server, session)] == TEXTS[:2]
    finally:
        redis.end()


@pytest.mark.parametrize("fault", ["killed", "frozen", "read-only"])
def test_a_fault_of_postgres_is_a_503_for_conversations_and_none_for_others(
    start_server: StartServer, brief: str, own_postgres: PostgresServer, fault: str
) -> None:
    url = own_postgres.new_database("faults")
    server = start_server(QAIO_STATE_URL=url, QAIO_PROMPTS=brief)
    session = new(server, TEXTS[0])

    def set_read_only(is_it: bool) -> None:
        own_postgres.execute(f"ALTER DATABASE faults SET default_transaction_read_only = {is_it}")
        own_postgres.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'faults'")

    breaks, mends = {
        "killed": (own_postgres.kill, own_postgres.start),
        "frozen": (own_postgres.freeze, own_postgres.thaw),
        "read-only": (lambda: set_read_only(True), lambda: set_read_only(False)),
    }[fault]
    breaks()
    for fields in ({"session": True}, {"session_id": session}):
        answer = chat(server, TEXTS[1], **fields)
        assert answer.status_code == 503 and problem(answer, "/chat")["code"] == "sessions_unavailable"
        assert int(answer.headers["Retry-After"]) >= 1
    once = server.client.post("/chat", json={"text": TEXTS[1]}, headers={"Idempotency-Key": "k"})
    assert once.status_code == 503 and problem(once, "/chat")["code"] == "idempotency_unavailable"
    assert chat(server, TEXTS[1]).status_code == 200
    mends()
    until(lambda: chat(server, TEXTS[1], session_id=session).status_code == 200)
    assert [turn["text"] for turn in stored(server, session)] == TEXTS[:2]


def test_with_postgres_and_redis_what_lasts_is_in_the_one_and_what_counts_in_the_other(
    start_server: StartServer, shared_postgres: PostgresServer, redis: RedisServer, brief: str, tmp_path: Path
) -> None:
    given = {
        "QAIO_STATE_URL": shared_postgres.new_database("both"),
        "QAIO_REDIS_URL": redis.url,
        "QAIO_PROMPTS": brief,
        "QAIO_RATE_REQUESTS": "1000",
    }
    one, other = (start_server(QAIO_SESSIONS_FILE=str(tmp_path / f"{n}.db"), **given) for n in range(2))
    session = new(one, TEXTS[0])
    assert chat(other, TEXTS[1], session_id=session).status_code == 200, "goes on on another machine"
    assert [turn["text"] for turn in stored(one, session)] == TEXTS[:2]
    made = one.client.post("/v1/responses", json={"model": "demo", "input": TEXTS[0]}).get_json()["id"]
    followed = other.client.post(
        "/v1/responses", json={"model": "demo", "input": TEXTS[1], "previous_response_id": made}
    )
    assert followed.status_code == 200
    asked = {"json": {"text": TEXTS[2], "temperature": 1.0}, "headers": {"Idempotency-Key": "once"}}
    first = one.client.post("/chat", **asked).data  # type: ignore[arg-type]
    assert other.client.post("/chat", **asked).data == first  # type: ignore[arg-type]

    def asked_of_chat() -> int:
        days = one.client.get("/v1/usage").get_json()["data"]
        return sum(day["routes"].get("POST /chat", {"requests": 0})["requests"] for day in days)

    until(lambda: asked_of_chat() == 4, 60)  # both servers' together
    tables = {name for (name,) in shared_postgres.execute("SELECT tablename FROM pg_tables", "both")}
    assert {"qaio_sessions", "qaio_turns", "qaio_once", "qaio_usage"} <= tables
    keys = [key.decode() for key in redis.execute("KEYS", "*")]  # type: ignore[union-attr]
    assert keys and not [key for key in keys if not key.startswith(("qaio:window:", "qaio:answer:"))], keys
    assert not list(tmp_path.glob("*.db"))


def test_a_turn_is_stored_as_json_that_people_can_read(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(QAIO_SESSIONS_FILE=str(tmp_path / "s.db"))
    new(server, TEXTS[0])
    with closing(sqlite3.connect(tmp_path / "s.db")) as db:
        (document,) = db.execute("SELECT turn FROM turns").fetchone()
    assert json.loads(document)["text"] == TEXTS[0] and TEXTS[0] in document
