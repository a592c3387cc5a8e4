"""What web pages may do: host names this answers under, and other sites' pages."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qwen_allinone.access import keys
from tests.integration.conftest import Server, StartServer, serve

APP = "https://app.example.com"
FOREIGN = "https://evil.example"


@pytest.fixture(scope="module")
def opened(demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Starts a server with keys that no test has."""
    file = tmp_path_factory.mktemp("access") / "keys"
    keys.add(file, "alice")
    with serve({"QAIO_MODEL": "demo", "QAIO_THREADS": "1", "QAIO_API_KEYS_FILE": str(file)}) as start:
        yield start


@pytest.fixture(scope="module")
def for_app(opened: StartServer) -> Server:
    return opened(QAIO_CORS_ORIGINS=f"{APP}, http://localhost:3000")


def preflight(server: Server, origin: str, path: str = "/v1/chat/completions") -> tuple[int, dict[str, str]]:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-lang",
    }
    answer = server.client.options(path, headers=headers)
    return answer.status_code, dict(answer.headers)


@pytest.mark.parametrize("origin", [APP, "http://localhost:3000"])
def test_a_page_of_a_named_site_may_ask_before_it_has_shown_its_key(for_app: Server, origin: str) -> None:
    status, headers = preflight(for_app, origin)
    assert status == 204
    assert headers["Access-Control-Allow-Origin"] == origin
    assert "POST" in headers["Access-Control-Allow-Methods"]
    assert headers["Access-Control-Allow-Headers"] == "authorization,content-type,x-stainless-lang"
    assert "Origin" in headers["Vary"]


@pytest.mark.parametrize(
    "origin", [FOREIGN, "https://app.example.com.evil.example", "http://app.example.com", "null", ""]
)
def test_a_page_of_another_site_is_told_nothing(for_app: Server, origin: str) -> None:
    status, headers = preflight(for_app, origin)
    assert status == 401  # as any other request without a key
    assert "Access-Control-Allow-Origin" not in headers


def test_errors_can_be_read_by_the_page_too_and_so_can_the_headers_of_ours(for_app: Server) -> None:
    answer = for_app.client.post("/chat", json={"text": "你好"}, headers={"Origin": APP})
    assert answer.status_code == 401
    assert answer.headers["Access-Control-Allow-Origin"] == APP
    assert "X-Request-Id" in answer.headers["Access-Control-Expose-Headers"]


def test_an_answer_without_an_origin_still_varies_by_it(for_app: Server) -> None:
    answer = for_app.client.get("/readyz")
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert "Origin" in answer.headers["Vary"]


def test_a_star_lets_every_site_in_and_never_with_cookies(opened: StartServer) -> None:
    server = opened(QAIO_CORS_ORIGINS="*")
    status, headers = preflight(server, FOREIGN)
    assert (status, headers["Access-Control-Allow-Origin"]) == (204, "*")
    assert "Access-Control-Allow-Credentials" not in headers


def test_an_options_request_that_is_no_preflight_still_needs_a_key(for_app: Server) -> None:
    assert for_app.client.options("/chat", headers={"Origin": APP}).status_code == 401


@pytest.fixture(scope="module")
def start(demo_checkpoint: Path) -> Iterator[StartServer]:
    """Starts a server without keys."""
    with serve({"QAIO_MODEL": "demo", "QAIO_THREADS": "1"}) as start:
        yield start


@pytest.fixture(scope="module")
def on_loopback(start: StartServer) -> Server:
    return start(ready=False)


def asked_as(server: Server, host: str, path: str = "/v1/models", peer: str = "127.0.0.1") -> int:
    environment = {"HTTP_HOST": host, "REMOTE_ADDR": peer}
    return server.client.get(path, environ_overrides=environment).status_code


@pytest.mark.parametrize("host", ["127.0.0.1:5000", "localhost", "LOCALHOST:80", "[::1]:5000", "192.168.1.7", ""])
def test_addresses_and_localhost_are_always_answered(on_loopback: Server, host: str) -> None:
    assert asked_as(on_loopback, host) == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:5000", "localhost.evil.example", "127.0.0.1.evil.example"]
)
def test_a_name_that_was_pointed_at_this_machine_is_refused(on_loopback: Server, host: str) -> None:
    answer = on_loopback.client.get("/v1/models", environ_overrides={"HTTP_HOST": host})
    assert answer.status_code == 421
    assert answer.get_json()["error"]["code"] == "wrong_host"
    assert "QAIO_ALLOWED_HOSTS" in answer.get_json()["error"]["message"]


def test_health_is_told_under_any_name(on_loopback: Server) -> None:
    assert asked_as(on_loopback, "pod.cluster.local", "/livez") == 200


def test_named_hosts_and_all_below_a_dot_are_answered(start: StartServer) -> None:
    server = start(ready=False, QAIO_ALLOWED_HOSTS="qaio, .example.com")
    assert [asked_as(server, name) for name in ("qaio:5000", "a.example.com", "example.com")] == [200] * 3
    assert asked_as(server, "qaio.evil.example") == 421


def test_what_listens_to_everybody_answers_under_any_name_unless_told_otherwise(start: StartServer) -> None:
    assert asked_as(start(ready=False, QAIO_HOST="0.0.0.0"), "qaio:5000") == 200
    assert asked_as(start(ready=False, QAIO_ALLOWED_HOSTS="*"), "qaio:5000") == 200


def test_a_trusted_proxy_has_checked_the_name_itself(start: StartServer) -> None:
    server = start(ready=False, QAIO_TRUSTED_PROXIES="127.0.0.1")
    assert asked_as(server, "api.example.com") == 200
    assert asked_as(server, "api.example.com", peer="127.0.0.2") == 421


def test_a_client_that_insists_on_another_models_name_is_served_under_it(start: StartServer) -> None:
    server = start(QAIO_MODEL_ALIASES="gpt-4o-mini, small")
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "你好"}], "max_tokens": 4}
    answer = server.post("/v1/chat/completions", body)
    assert (answer.status_code, answer.get_json()["model"]) == (200, "gpt-4o-mini")
    assert answer.headers["X-Model"] == "demo"
    assert [model["id"] for model in server.client.get("/v1/models").get_json()["data"]] == [
        "demo",
        "gpt-4o-mini",
        "small",
    ]
    assert server.client.get("/v1/models/small").get_json()["id"] == "small"
    refused = server.post("/v1/chat/completions", body | {"model": "gpt-5"})
    assert refused.status_code == 404
    assert "gpt-4o-mini" in refused.get_json()["error"]["message"]


def test_the_page_of_the_documentation_may_load_from_here_only_and_stand_in_no_other_page(server: Server) -> None:
    page = server.client.get("/docs/swagger")
    assert page.mimetype == "text/html"
    policy = page.headers["Content-Security-Policy"].split("; ")
    assert {"default-src 'self'", "object-src 'none'", "frame-ancestors 'none'"} <= set(policy)
    assert not [part for part in policy if "http" in part or "*" in part or "eval" in part]
    # What the page itself names must be allowed: all of it is here.
    assert not [link for link in re.findall(r'(?:src|href)="([^"]+)"', page.text) if "//" in link]
    assert "Content-Security-Policy" not in server.client.get("/openapi.json").headers
