"""GET /v1/usage: what each key has used, as the metrics count it too."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from qwen_allinone.access import keys
from tests.integration.conftest import Gate, Later, Server, StartServer, serve

TODAY = f"{datetime.now(UTC):%Y-%m-%d}"
MESSAGES = [{"role": "user", "content": "今天心情特别差"}]


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("usage")


@pytest.fixture(scope="module")
def secrets(held: Path) -> dict[str, dict[str, str]]:
    """Headers of three keys; one is an admin's."""
    return {
        name: {"Authorization": f"Bearer {keys.add(held / 'keys', name)}"}
        for name in ("alice", "bob", "root", "nobody-yet")
    }


@pytest.fixture(scope="module")
def guarded(demo_checkpoint: Path, held: Path, secrets: dict[str, dict[str, str]]) -> Iterator[Server]:
    given = {
        "QAIO_MODEL": "demo",
        "QAIO_THREADS": "1",
        "QAIO_API_KEYS_FILE": str(held / "keys"),
        "QAIO_SESSIONS_FILE": str(held / "sessions.db"),
        "QAIO_ADMINS": "root",
        "QAIO_FIT": "off",
    }
    with serve(given) as start:
        yield start()


def usage(server: Server, headers: dict[str, str] | None = None, query: str = "") -> list[dict[str, Any]]:
    answer = server.client.get(f"/v1/usage{query}", headers=headers or {})
    assert answer.status_code == 200, answer.get_json()
    return list(answer.get_json()["data"])


def refused(server: Server, query: str, headers: dict[str, str] | None = None) -> tuple[int, str, str | None]:
    answer = server.client.get(f"/v1/usage{query}", headers=headers or {})
    error = answer.get_json()["error"]
    return answer.status_code, error["code"], error["param"]


def test_requests_count_by_route_and_answers_by_task(guarded: Server, secrets: dict[str, dict[str, str]]) -> None:
    mine = secrets["alice"]
    fresh = mine | {"Cache-Control": "no-store"}
    chat = {"model": "demo", "messages": MESSAGES, "max_tokens": 4, "seed": 1}
    first = guarded.client.post("/v1/chat/completions", json=chat, headers=mine).get_json()["usage"]
    streamed = guarded.client.post("/v1/chat/completions", json=chat | {"stream": True}, headers=mine)
    assert "[DONE]" in streamed.get_data(as_text=True)
    label = {"text": "房间干净", "detail": True}
    told = guarded.client.post("/v1/tasks/sentiment", json=label, headers=fresh).get_json()["detail"]["usage"]
    assert guarded.client.post("/v1/tasks/sentiment", json={"text": ""}, headers=mine).status_code == 400
    (day,) = usage(guarded, mine)
    assert (day["key"], day["day"], day["requests"], day["failed"]) == ("alice", TODAY, 4, 1)
    assert day["routes"] == {
        "POST /v1/chat/completions": {"requests": 2, "failed": 0},
        "POST /v1/tasks/sentiment": {"requests": 2, "failed": 1},
    }
    sentiment = day["tasks"].pop("sentiment")
    assert sentiment == {
        "answers": 1, "unfinished": 0, "prompt_tokens": told["prompt_tokens"],
        "cached_tokens": told["reused_tokens"], "completion_tokens": told["completion_tokens"],
    }  # fmt: skip
    (replies,) = day["tasks"].values()
    assert replies["answers"] == 2 and replies["unfinished"] == 0
    assert replies["prompt_tokens"] == 2 * first["prompt_tokens"]
    assert replies["completion_tokens"] == 2 * first["completion_tokens"]
    assert day["completion_tokens"] == replies["completion_tokens"] + sentiment["completion_tokens"]
    assert usage(guarded, mine)[0]["routes"]["GET /v1/usage"]["requests"] == 1, "it counts itself, when it is out"


def test_a_remembered_answer_takes_no_tokens(guarded: Server, secrets: dict[str, dict[str, str]]) -> None:
    mine = secrets["nobody-yet"]
    assert usage(guarded, mine) == []
    body = {"text": "没有人说过的一句话"}
    for expected in ("MISS", "HIT"):
        answer = guarded.client.post("/v1/tasks/sentiment", json=body, headers=mine)
        assert answer.headers["X-Cache"] == expected
        task = usage(guarded, mine)[0]["tasks"]["sentiment"]
        assert task["completion_tokens"] == 1 and task["prompt_tokens"] > 0
    assert task["answers"] == 2


def test_a_key_sees_itself_and_an_admin_all(guarded: Server, secrets: dict[str, dict[str, str]]) -> None:
    for name in ("alice", "bob"):
        guarded.client.get("/v1/models", headers=secrets[name])
    guarded.client.get("/v1/models")  # a stranger: in nobody's account
    assert {day["key"] for day in usage(guarded, secrets["bob"])} == {"bob"}
    assert usage(guarded, secrets["bob"], "?key=bob")[0]["routes"]["GET /v1/models"]["requests"] == 1
    assert refused(guarded, "?key=alice", secrets["bob"]) == (403, "usage_forbidden", "key")
    assert {day["key"] for day in usage(guarded, secrets["root"])} >= {"alice", "bob"}
    assert None not in {day["key"] for day in usage(guarded, secrets["root"])}
    assert {day["key"] for day in usage(guarded, secrets["root"], "?key=alice")} == {"alice"}
    assert usage(guarded, secrets["root"], "?key=who") == []
    assert refused(guarded, "") == (401, "unauthorized", None)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("?from=yesterday", "from"),
        ("?from=20260101", "from"),
        ("?to=2026-02-30", "to"),
        ("?to=1767268800", "to"),
        ("?from=2026-02-02&to=2026-02-01", "from"),
        ("?form=2026-02-02", "form"),
    ],
)
def test_a_wrong_question_is_told_which_field_is(
    guarded: Server, secrets: dict[str, dict[str, str]], query: str, param: str
) -> None:
    assert refused(guarded, query, secrets["root"]) == (400, "invalid_input", param)


def test_days_are_chosen(guarded: Server, secrets: dict[str, dict[str, str]]) -> None:
    guarded.client.get("/v1/models", headers=secrets["bob"])
    tomorrow, yesterday = (f"{datetime.now(UTC) + timedelta(days=days):%Y-%m-%d}" for days in (1, -1))
    assert usage(guarded, secrets["bob"], f"?from={TODAY}&to={tomorrow}")
    assert usage(guarded, secrets["bob"], f"?to={yesterday}") == []
    assert usage(guarded, secrets["bob"], "?from=1999-01-01&to=1999-12-31") == []


def test_the_account_agrees_with_the_metrics_in_failures_too(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(QAIO_SESSIONS_FILE=str(tmp_path / "s.db"), QAIO_FIT="off")
    gate = Gate(server)
    ask = {"model": "demo", "messages": MESSAGES, "max_tokens": 300, "logit_bias": {}}
    assert server.post("/v1/chat/completions", ask | {"max_tokens": 3}).status_code == 200
    gate.shut()
    late = Later(lambda: server.client.post("/v1/chat/completions", json=ask, headers={"X-Timeout-Ms": "300"}))
    assert gate.entered.wait(30)
    assert late.answer().status_code == 504
    gate.open()
    assert server.post("/chat", {"text": ""}).status_code == 400
    (day,) = usage(server)
    assert day["key"] is None and (day["requests"], day["failed"]) == (3, 2)
    assert day["routes"]["POST /v1/chat/completions"] == {"requests": 2, "failed": 1}
    (replies,) = day["tasks"].values()
    assert (replies["answers"], replies["unfinished"]) == (2, 1)
    metrics = server.client.get("/metrics").get_data(as_text=True)

    def counted(name: str) -> int:
        return sum(int(float(value)) for value in re.findall(rf"^qaio_{name}_total(?:{{.*}})? (\S+)$", metrics, re.M))

    (day,) = usage(server)
    assert day["requests"] == counted("requests")
    assert day["prompt_tokens"] == counted("prompt_tokens") > 0
    assert day["cached_tokens"] == counted("prefix_cache_hits")
    assert day["completion_tokens"] == counted("generation_tokens") > 0


def test_without_keys_there_is_one_account(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(QAIO_SESSIONS_FILE=str(tmp_path / "s.db"), QAIO_FIT="off")
    assert refused(server, "?key=alice") == (400, "invalid_input", "key")
    assert [day["key"] for day in usage(server)] == [None]


def test_where_nothing_is_or_can_be_kept_it_says_so(start_server: StartServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    off = start_server(QAIO_USAGE_DAYS="0", QAIO_FIT="off")
    assert refused(off, "") == (404, "usage_off", None)
    broken = start_server(QAIO_SESSIONS_FILE=str(tmp_path / "file" / "s.db"), QAIO_FIT="off")
    assert broken.post("/v1/tasks/sentiment", {"text": "好"}).status_code == 200
    assert refused(broken, "") == (503, "usage_unavailable", None)
    assert "Retry-After" in broken.client.get("/v1/usage").headers
