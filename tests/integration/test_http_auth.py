"""Keys and tokens over HTTP: nothing is learnt without one, but that the process lives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from openapi_spec_validator import validate
from werkzeug.test import TestResponse

from qwen_allinone.access import keys
from qwen_allinone.http.request_state import current
from tests.integration.conftest import Server, StartServer, serve
from tests.integration.test_http_errors import problem
from tests.support.tokens import AUDIENCE, ISSUER, claims, forge, key_file, sign

OPEN = {"/livez", "/readyz", "/health"}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")


@dataclass
class Guarded:
    """A server that asks for keys and for RS256 tokens, and alice's key."""

    server: Server
    file: Path
    key: str
    seen: list[str | None]

    def get(self, path: str = "/v1/tasks", **headers: str) -> TestResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.server.client.get(path, headers=named)


@pytest.fixture(scope="module")
def guarded(demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("access")
    key = keys.add(folder / "keys", "alice")
    (folder / "jwt.pem").write_bytes(key_file("RS256"))
    environment = {
        "QAIO_MODEL": "demo",
        "QAIO_THREADS": "1",
        "QAIO_API_KEYS_FILE": str(folder / "keys"),
        "QAIO_JWT_ALGORITHM": "RS256",
        "QAIO_JWT_KEY_FILE": str(folder / "jwt.pem"),
        "QAIO_JWT_ISSUER": ISSUER,
        "QAIO_JWT_AUDIENCE": AUDIENCE,
    }
    with serve(environment) as start:
        server = start()
        seen: list[str | None] = []
        server.app.teardown_request(lambda _: seen.append(current().caller))
        yield Guarded(server, folder / "keys", key, seen)


def routes(server: Server) -> Iterator[tuple[str, str]]:
    """Every path there is, every method, and some that are not."""
    paths = {
        rule.rule.replace("<name>", "x").replace("<path:filename>", "index.css")
        for rule in server.app.url_map.iter_rules()
    }
    assert {"/chat", "/docs", "/openapi.json", "/v1/tasks", "/livez"} <= paths
    for path in [
        *sorted(paths),
        "/",
        "/nope",
        "/metrics",
        "/v1",
        "/v1/nope",
        "/v1/tasks/nope",
        "//livez",
        "/livez/",
        "/LIVEZ",
    ]:
        for method in METHODS:
            if path not in OPEN or method not in ("GET", "HEAD", "OPTIONS"):
                yield method, path


def test_without_a_key_every_route_answers_alike_and_says_nothing(guarded: Guarded) -> None:
    asked = list(routes(guarded.server))
    assert len(asked) > 100
    for method, path in asked:
        answer = guarded.server.client.open(
            path, method=method, json={"text": "今天很开心"} if method == "POST" else None
        )
        assert answer.status_code == 401, (method, path)
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="qwen-allinone"'
        assert "Allow" not in answer.headers and "Location" not in answer.headers
        if method != "HEAD":
            found = problem(answer, path)
            assert found["code"] == "unauthorized" and "X-API-Key" in found["message"]


def test_health_needs_no_key(guarded: Guarded) -> None:
    for path in OPEN:
        answer = guarded.get(path)
        assert (answer.status_code, answer.get_json()) == (200, {"status": "ok"})


def test_with_a_key_the_routes_answer_as_ever(guarded: Guarded) -> None:
    client, headers = guarded.server.client, {"X-API-Key": guarded.key}
    chat = client.post("/chat", json={"text": "今天很开心"}, headers=headers)
    assert chat.status_code == 200 and list(chat.get_json()) == ["sentiment", "response"]
    assert client.get("/docs/swagger", headers=headers).status_code == 200
    assert client.get("/nope", headers=headers).status_code == 404
    wrong_method = client.get("/chat", headers=headers)
    assert wrong_method.status_code == 405 and "POST" in wrong_method.headers["Allow"]
    assert client.post("/v1/tasks/nope", json={}, headers=headers).status_code == 404


def test_a_key_is_taken_from_either_header_and_names_the_caller(guarded: Guarded) -> None:
    for headers in (
        {"X_API_Key": guarded.key},
        {"X_API_Key": f" {guarded.key} "},
        {"Authorization": f"Bearer {guarded.key}"},
        {"Authorization": f"bearer   {guarded.key}"},
        {"Authorization": "Basic dXNlcjpwdw==", "X_API_Key": guarded.key},  # a proxy's own password
    ):
        assert guarded.get(**headers).status_code == 200
        assert guarded.seen[-1] == "alice"


def test_a_token_is_taken_from_either_header_and_names_the_caller(guarded: Guarded) -> None:
    token = sign("RS256", claims(sub="alice"))
    for headers in ({"X_API_Key": token}, {"Authorization": f"Bearer {token}"}):
        assert guarded.get(**headers).status_code == 200
        assert guarded.seen[-1] == "jwt:alice", "which is not the alice of the key"


WRONG = {
    "a wrong key": {"X_API_Key": "qaio_" + "A" * 43},
    "a name": {"X_API_Key": "alice"},
    "not ASCII": {"X_API_Key": "\xe5\xaf\x86"},
    "a long one": {"X_API_Key": "a" * 100_000},
    "garbage": {"Authorization": "Bearer ...."},
    "two keys": {"Authorization": "Bearer a,Bearer b"},
    "a token unsigned": {"Authorization": f"Bearer {forge({'alg': 'none'}, claims(), None)}"},
    "a token by the public key": {"Authorization": f"Bearer {forge({'alg': 'HS256'}, claims(), key_file('RS256'))}"},
    "a token of deep lists": {"Authorization": f"Bearer {forge({'alg': 'RS256'}, b'[' * 5000, b'x')}"},
    "an old token": {"Authorization": f"Bearer {sign('RS256', claims(exp=1))}"},
    "a token for others": {"Authorization": f"Bearer {sign('RS256', claims(aud='other'))}"},
}


@pytest.mark.parametrize("headers", list(WRONG.values()), ids=list(WRONG))
def test_what_does_not_hold_is_a_401_that_says_so(guarded: Guarded, headers: dict[str, str]) -> None:
    for path in ("/v1/tasks", "/docs"):
        answer = guarded.get(path, **headers)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="qwen-allinone", error="invalid_token"'
        found = problem(answer, path)
        assert (found["code"], "无效" in found["message"]) == ("unauthorized", True)
        assert guarded.seen[-1] is None
        assert guarded.get("/health", **headers).status_code == 200


def test_a_wrong_bearer_is_not_helped_by_a_right_key_beside_it(guarded: Guarded) -> None:
    assert guarded.get(Authorization="Bearer x", X_API_Key=guarded.key).status_code == 401


def test_a_hash_from_the_file_is_no_key(guarded: Guarded) -> None:
    stored = guarded.file.read_text().rsplit(":", 1)[1].strip()
    for shown in (stored, f"sha256:{stored}"):
        assert guarded.get(X_API_Key=shown).status_code == 401


def test_keys_come_and_go_without_a_restart(guarded: Guarded) -> None:
    bob = keys.add(guarded.file, "bob")
    assert guarded.get(X_API_Key=bob).status_code == 200
    assert guarded.seen[-1] == "bob"
    keys.remove(guarded.file, "bob")
    assert guarded.get(X_API_Key=bob).status_code == 401
    assert guarded.get(X_API_Key=guarded.key).status_code == 200


@pytest.mark.parametrize("fault", ["broken", "empty", "gone", "a folder"])
def test_a_broken_file_leaves_the_last_good_keys(
    guarded: Guarded, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    good = guarded.file.read_bytes()
    assert guarded.get(X_API_Key=guarded.key).status_code == 200
    guarded.file.unlink()
    if fault == "a folder":
        guarded.file.mkdir()
    elif fault != "gone":
        guarded.file.write_bytes(b"" if fault == "empty" else good[:-9])
    try:
        for _ in range(3):
            assert guarded.get(X_API_Key=guarded.key).status_code == 200
            assert guarded.get(X_API_Key="x").status_code == 401
        assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1
    finally:
        if fault == "a folder":
            guarded.file.rmdir()
        guarded.file.write_bytes(good)
    assert guarded.get(X_API_Key=guarded.key).status_code == 200


def test_no_key_or_token_is_logged(guarded: Guarded, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    shown = [guarded.key, "qaio_hunter2hunter2", sign("RS256", claims()), sign("RS256", claims(exp=1))]
    for secret in shown:
        guarded.get(Authorization=f"Bearer {secret}")
        guarded.get("/docs", X_API_Key=secret)
    for secret in shown:
        assert secret not in caplog.text and secret[-20:] not in caplog.text


# What these keep of one key takes a share of the store at most.
KEEPING = ("/chat", "/v1/responses", "/v1/chat/completions", "/v1/files", "/v1/batches", "/v1/memory/{user}")


def test_the_document_tells_of_keys_and_what_it_tells_is_true(guarded: Guarded) -> None:
    document = json.loads(guarded.get("/openapi.json", X_API_Key=guarded.key).data)
    validate(document)
    assert set(document["components"]["securitySchemes"]) == {"bearer", "api_key"}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert ("security" in operation) == ("401" in operation["responses"]) == (path not in OPEN)
            kept = method == "post" and path in KEEPING
            assert ("429" in operation["responses"]) == kept, "nothing else is limited here"
    again = json.loads(guarded.get("/openapi.json", X_API_Key=guarded.key).data)
    assert again == document


def test_strangers_are_not_told_why_the_model_is_not_ready(start_server: StartServer, tmp_path: Path) -> None:
    key = keys.add(tmp_path / "keys", "alice")
    absent = str(tmp_path / "no-model-here")
    server = start_server(ready=False, QAIO_MODEL=absent, QAIO_API_KEYS_FILE=str(tmp_path / "keys"))
    server.service.engine.wait_until_settled(30)
    for headers in ({}, {"X-API-Key": "wrong"}, {"Authorization": "Bearer x"}):
        answer = server.client.get("/readyz", headers=headers)
        assert (answer.status_code, answer.get_json()) == (503, {"status": "failed"})
    told = server.client.get("/readyz", headers={"X-API-Key": key})
    assert told.status_code == 503 and absent in told.get_json()["problem"]


def test_without_credentials_in_the_settings_nothing_is_asked(server: Server) -> None:
    for headers in ({}, {"Authorization": "Bearer x"}, {"X-API-Key": "x"}):
        answer = server.client.get("/v1/tasks", headers=headers)
        assert answer.status_code == 200 and "WWW-Authenticate" not in answer.headers
    document = server.client.get("/openapi.json").get_json()
    assert "securitySchemes" not in document["components"]
    assert "401" not in document["paths"]["/chat"]["post"]["responses"]


def test_a_worker_that_starts_on_a_broken_file_lets_nobody_in_until_it_is_mended(
    start_server: StartServer, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    key = keys.add(file, "alice")
    good = file.read_bytes()
    file.write_bytes(b"broken")
    server = start_server(ready=False, QAIO_API_KEYS_FILE=str(file))
    for shown in (key, "", "broken"):
        assert server.client.get("/v1/tasks", headers={"X-API-Key": shown}).status_code == 401
    assert server.client.get("/livez").status_code == 200
    file.write_bytes(good)
    assert server.client.get("/v1/tasks", headers={"X-API-Key": key}).status_code == 200
