"""Requests with an Idempotency-Key: answered once, however often they come."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import TestResponse

from qwen_allinone import bootstrap
from qwen_allinone.access import keys
from qwen_allinone.settings import Settings
from tests.integration.conftest import Gate, Later, ReadingClient, Server, serve
from tests.support.openai_client import client_of

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "demo", "messages": [{"role": "user", "content": "今天心情特别差"}], "max_tokens": 8}


@pytest.fixture(scope="module")
def workers(
    demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, Server, str, str]]:
    """Two workers' apps with one file, over one engine, and the keys of two callers."""
    home = tmp_path_factory.mktemp("once")
    alice, bob = (keys.add(home / "keys", name) for name in ("alice", "bob"))
    given = {
        "QAIO_MODEL": "demo",
        "QAIO_THREADS": "1",
        "QAIO_SLOTS": "1",
        "QAIO_MAX_WAITING": "0",
        "QAIO_API_KEYS_FILE": str(home / "keys"),
        "QAIO_SESSIONS_FILE": str(home / "sessions.db"),
    }
    with serve(given) as start:
        one = start()
        other = Server(bootstrap.wrap(one.service, Settings.load(given)), one.service)
        other.app.test_client_class = ReadingClient
        yield one, other, alice, bob
        other.app.extensions["telemetry"].close()


def ask(server: Server, key: str, name: str, body: Any = BODY, path: str = CHAT, **headers: str) -> TestResponse:
    own = {"Authorization": f"Bearer {key}", "Idempotency-Key": name} | headers
    if isinstance(body, bytes):
        return server.client.post(path, data=body, content_type="application/json", headers=own)
    return server.client.post(path, json=body, headers=own)


def code(answer: TestResponse) -> tuple[int, str]:
    error = answer.get_json()["error"]
    return answer.status_code, error["code"] if isinstance(error, dict) else answer.get_json()["code"]


def test_the_same_request_gets_the_same_answer_from_any_worker(workers: tuple[Server, Server, str, str]) -> None:
    one, other, alice, bob = workers
    first = ask(one, alice, "a")
    gate = Gate(one)
    again = ask(other, alice, "a")
    assert again.data == first.data and again.status_code == 200 and gate.steps == 0
    assert (again.headers["Idempotent-Replayed"], again.content_type) == ("true", first.content_type)
    assert again.headers["X-Request-Id"] != first.headers["X-Request-Id"]
    assert "Idempotent-Replayed" not in first.headers
    hers = ask(one, bob, "a")
    assert hers.get_json()["id"] != first.get_json()["id"] and gate.steps > 0


@pytest.mark.parametrize(
    ("path", "body"), [(CHAT, BODY | {"seed": 1}), (CHAT, BODY | {"stream": True}), ("/v1/completions", BODY)]
)
def test_another_request_under_the_key_is_told_so(
    workers: tuple[Server, Server, str, str], path: str, body: dict[str, Any]
) -> None:
    one, other, alice, _ = workers
    assert ask(one, alice, "b").status_code == 200
    refused = ask(other, alice, "b", body, path)
    assert code(refused) == (409, "idempotency_mismatch") and refused.headers["X-Should-Retry"] == "false"


def test_who_comes_meanwhile_is_told_to_wait_and_the_official_client_does(
    workers: tuple[Server, Server, str, str],
) -> None:
    one, other, alice, _ = workers
    gate = Gate(one)
    gate.shut()
    first = Later(lambda: ask(one, alice, "c"))
    assert gate.entered.wait(30)
    busy = ask(other, alice, "c")
    assert code(busy) == (409, "idempotency_busy") and busy.headers["Retry-After"] == "2"
    assert ask(one, alice, "never").status_code == 503  # full: such a key is free again
    gate.open()
    whole = first.answer()
    with client_of(other.app, api_key=alice, max_retries=2) as client:
        answer: Any = client.chat.completions.create(**BODY, extra_headers={"Idempotency-Key": "never"})
        assert client.chat.completions.create(**BODY, extra_headers={"Idempotency-Key": "never"}).id == answer.id
    assert ask(other, alice, "c").data == whole.data


def test_what_was_refused_may_be_asked_again(workers: tuple[Server, Server, str, str]) -> None:
    one, _, alice, _ = workers
    assert ask(one, alice, "d", BODY | {"max_tokens": 0}).status_code == 400
    assert ask(one, alice, "d", b"{").status_code == 400
    assert ask(one, alice, "d", path="/v1/nothing").status_code == 404
    assert ask(one, "wrong", "d").status_code == 401
    assert ask(one, alice, "d").status_code == 200


def test_a_turn_of_a_conversation_is_kept_once(workers: tuple[Server, Server, str, str]) -> None:
    one, other, alice, _ = workers
    body = {"text": "今天心情特别差", "session": True}
    first = ask(one, alice, "e", body, "/chat").get_json()
    more = {"text": "还要加班", "session_id": first["session_id"]}
    assert ask(one, alice, "f", more, "/chat").data == ask(other, alice, "f", more, "/chat").data
    session = one.client.get(f"/v1/sessions/{first['session_id']}", headers={"Authorization": f"Bearer {alice}"})
    assert len(session.get_json()["turns"]) == 2


@pytest.mark.parametrize("name", ["", " ", "键".encode().decode("latin-1"), "a b", "a" * 256])
def test_what_is_no_key_is_a_400(workers: tuple[Server, Server, str, str], name: str) -> None:
    one, _, alice, _ = workers
    refused = ask(one, alice, name)
    assert refused.status_code == 400 and refused.get_json()["error"]["param"] == "Idempotency-Key"


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        (CHAT, BODY | {"stream": True}, {}),
        ("/v1/responses", {"model": "demo", "input": "好", "stream": True}, {}),
        ("/chat", {"text": "好"}, {"Accept": "text/event-stream"}),
    ],
)
def test_a_stream_takes_no_key(
    workers: tuple[Server, Server, str, str], path: str, body: dict[str, Any], headers: dict[str, str]
) -> None:
    one, _, alice, _ = workers
    gate = Gate(one)
    assert code(ask(one, alice, "g", body, path, **headers)) == (400, "invalid_input")
    assert gate.steps == 0
