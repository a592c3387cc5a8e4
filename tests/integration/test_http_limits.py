"""Limits over HTTP, counted in the process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flask import jsonify
from openapi_spec_validator import validate
from werkzeug.test import TestResponse

from qwen_allinone.access import keys
from qwen_allinone.engine import FinishReason, Result
from qwen_allinone.http.rate_limits import charge_answers
from qwen_allinone.http.request_state import current
from qwen_allinone.service import Answer
from tests.integration.conftest import Server, StartServer
from tests.integration.test_http_errors import problem

HEADERS = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
OPEN = ("/livez", "/readyz", "/health")


def standing(answer: TestResponse) -> tuple[int, int]:
    """Limit and remaining; Reset must be seconds of this minute."""
    limit, remaining, reset = (int(answer.headers[name]) for name in HEADERS)
    assert 1 <= reset <= 60
    return limit, remaining


def generated(tokens: int) -> Answer:
    return Answer("chat", Result(FinishReason.UNFINISHED, tuple(range(tokens)), 5, 0))


def get(server: Server, path: str = "/v1/tasks", peer: str = "203.0.113.9", **headers: str) -> TestResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return server.client.get(path, headers=named, environ_base={"REMOTE_ADDR": peer})


def assert_limited(answer: TestResponse, path: str) -> None:
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert standing(answer)[1] == 0
    found = problem(answer, path)
    assert found["code"] == "rate_limited"
    assert f"{answer.headers['Retry-After']} 秒后" in found["message"]


def test_requests_are_counted_down_and_then_refused(start_server: StartServer) -> None:
    server = start_server(ready=False, QAIO_RATE_REQUESTS="4")
    asked = {"/v1/tasks": 200, "/docs": 302, "/nope": 404, "/chat": 405}  # every request counts
    for left, (path, status) in zip((3, 2, 1, 0), asked.items(), strict=True):
        answer = get(server, path)
        assert (answer.status_code, standing(answer)) == (status, (4, left))
    for path in (*asked, "/openapi.json"):
        assert_limited(get(server, path), path)
    for path in OPEN * 5:
        answer = get(server, path)
        assert answer.status_code in (200, 503) and not set(HEADERS) & set(answer.headers.keys())


def test_one_client_does_not_use_up_another_s_share(start_server: StartServer) -> None:
    server = start_server(ready=False, QAIO_RATE_REQUESTS="2")
    for _ in range(5):
        last = get(server, peer="198.51.100.1")
    assert last.status_code == 429
    assert standing(get(server, peer="198.51.100.2")) == (2, 1)
    # Of IPv6 everybody has 2^64 addresses.
    assert [get(server, peer=f"2001:db8::{n:x}").status_code for n in range(1, 5)] == [200, 200, 429, 429]
    assert get(server, peer="2001:db8:0:1::1").status_code == 200


def test_a_forged_header_changes_nothing(start_server: StartServer) -> None:
    server = start_server(ready=False, QAIO_RATE_REQUESTS="3", QAIO_TRUSTED_PROXIES="10.0.0.0/8")
    answers = [
        get(server, X_Forwarded_For=f"198.51.100.{n}", X_Real_IP=f"198.51.100.{n}", Forwarded=f"for=1.1.1.{n}")
        for n in range(5)
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    behind = [get(server, peer="10.0.0.1", X_Forwarded_For=f"9.9.9.{n}, 198.51.100.7, 10.0.0.2") for n in range(5)]
    assert [answer.status_code for answer in behind] == [200, 200, 200, 429, 429]
    assert get(server, peer="10.0.0.1", X_Forwarded_For="198.51.100.8").status_code == 200


def test_each_key_has_a_share_of_its_own_from_wherever_it_calls(start_server: StartServer, tmp_path: Path) -> None:
    alice, bob = keys.add(tmp_path / "keys", "alice"), keys.add(tmp_path / "keys", "bob")
    server = start_server(ready=False, QAIO_RATE_REQUESTS="3", QAIO_API_KEYS_FILE=str(tmp_path / "keys"))
    codes = [get(server, peer=f"198.51.100.{n}", X_API_Key=alice).status_code for n in range(5)]
    assert codes == [200, 200, 200, 429, 429]
    assert standing(get(server, peer="198.51.100.1", X_API_Key=bob)) == (3, 2)


def test_guessing_keys_is_limited_by_address_and_costs_no_caller_its_share(
    start_server: StartServer, tmp_path: Path
) -> None:
    alice = keys.add(tmp_path / "keys", "alice")
    server = start_server(ready=False, QAIO_RATE_REQUESTS="3", QAIO_API_KEYS_FILE=str(tmp_path / "keys"))
    guesses = [get(server, X_API_Key=f"guess{n}") for n in range(5)]
    assert [answer.status_code for answer in guesses] == [401, 401, 401, 429, 429]
    assert standing(guesses[0]) == (3, 2)
    assert_limited(guesses[-1], "/v1/tasks")
    assert get(server).status_code == 429, "no key at all counts as a guess"
    assert get(server, peer="198.51.100.7", X_API_Key="guess").status_code == 401
    # Whoever shares an address with the guesser is not shut out by it.
    assert standing(get(server, X_API_Key=alice)) == (3, 2)


def chat(server: Server, text: str = "今天很开心") -> TestResponse:
    return server.client.post("/chat", json={"text": text})


def test_generated_tokens_are_charged_and_the_next_is_refused_when_they_are_used_up(start_server: StartServer) -> None:
    server = start_server(QAIO_RATE_TOKENS="30")
    lengths: list[int] = []
    run = server.service.run

    def measured(*args: Any, **named: Any) -> Any:
        answer = run(*args, **named)
        lengths.append(len(answer.result.ids))
        return answer

    server.service.run = measured  # type: ignore[method-assign]
    spent = 0
    while spent < 30:
        answer = server.client.post("/v1/tasks/chat", json={"text": "今天很开心", "sentiment": "正面"})
        assert answer.status_code == 200
        spent = sum(lengths)
        assert spent > 0 and standing(answer) == (30, max(0, 30 - spent))
    refused = chat(server)
    assert_limited(refused, "/chat")
    assert "30 个 token" in refused.get_json()["error"]
    assert len(lengths) and sum(lengths) == spent, "what was refused was not computed"
    assert server.client.get("/v1/tasks").status_code == 200, "reading costs no tokens"


def test_both_answers_of_a_chat_are_charged(start_server: StartServer) -> None:
    server = start_server(QAIO_RATE_TOKENS="1000")
    label = server.client.post("/v1/tasks/sentiment", json={"text": "今天很开心"})
    of_label = 1000 - standing(label)[1]
    assert of_label >= 1
    of_chat = 1000 - of_label - standing(chat(server))[1]
    assert of_chat > of_label + 3


def test_what_was_computed_is_charged_though_the_request_fails(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_server(QAIO_RATE_TOKENS="1000")

    def fails() -> Any:
        current().answers.append(generated(7))
        raise RuntimeError("after the tokens were made")

    server.app.add_url_rule("/fails", view_func=fails, methods=["POST"])
    answer = server.client.post("/fails")
    assert answer.status_code == 500 and standing(answer) == (1000, 993)


def test_a_stream_charges_at_its_end(start_server: StartServer) -> None:
    from flask import Response, stream_with_context

    server = start_server(ready=False, QAIO_RATE_TOKENS="10")

    def stream() -> Response:
        def parts() -> Iterator[str]:
            yield "a"
            charge_answers([generated(12)])

        return Response(stream_with_context(parts()))

    server.app.add_url_rule("/stream", view_func=stream, methods=["POST"])
    first = server.client.post("/stream")
    assert first.data == b"a" and standing(first) == (10, 10), "its length was not known when the headers left"
    assert_limited(server.client.post("/stream"), "/stream")


def test_without_limits_charging_is_free_and_no_header_is_sent(start_server: StartServer) -> None:
    server = start_server(ready=False)

    def free() -> Any:
        charge_answers([generated(10**5)])
        return jsonify(done=True)

    server.app.add_url_rule("/free", view_func=free, methods=["POST"])
    for _ in range(3):
        answer = server.client.post("/free")
        assert answer.status_code == 200 and not set(HEADERS) & set(answer.headers.keys())


def test_the_headers_tell_of_the_limit_nearer_to_its_end(start_server: StartServer) -> None:
    server = start_server(QAIO_RATE_REQUESTS="100", QAIO_RATE_TOKENS="100000")
    assert standing(chat(server)) == (100, 99)
    tight = start_server(QAIO_RATE_REQUESTS="100000", QAIO_RATE_TOKENS="100")
    assert standing(chat(tight))[0] == 100


def test_a_full_server_s_own_retry_after_is_left_alone(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(ready=False, QAIO_MODEL=str(tmp_path / "none"), QAIO_RATE_REQUESTS="5")
    server.service.engine.wait_until_settled(30)
    answer = chat(server)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert standing(answer) == (5, 4)
    assert "Retry-After" not in get(server).headers


def test_of_many_requests_at_once_exactly_the_limit_passes(start_server: StartServer) -> None:
    server = start_server(ready=False, QAIO_RATE_REQUESTS="25")
    with ThreadPoolExecutor(16) as pool:
        codes = list(pool.map(lambda _: get(server).status_code, range(80)))
    assert (codes.count(200), codes.count(429)) == (25, 55)


def test_the_document_tells_of_limits(start_server: StartServer) -> None:
    server = start_server(ready=False, QAIO_RATE_TOKENS="5")
    document = json.loads(get(server, "/openapi.json").data)
    validate(document)
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert ("429" in operation["responses"]) == (path not in OPEN)
            assert "401" not in operation["responses"] and "security" not in operation
