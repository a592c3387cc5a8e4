"""/v1/prompts: a changed prompt on the gold cases beside the one that is served, saved as a new folder; who may."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import TestResponse

from qwen_allinone.access import keys
from tests.integration.conftest import Server, serve
from tests.integration.test_http_openapi import assert_documented
from tests.support.tasks import PROJECT

TASKS = ("sentiment", "chat", "keywords")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of few tasks, with few cases where each is text."""
    folder = tmp_path_factory.mktemp("bench")
    for task in TASKS:
        shutil.copytree(PROJECT / "prompts" / task, folder / "prompts" / task)
    cases = folder / "prompts" / "keywords" / "cases.yaml"
    cases.write_text("".join(f"- {case}" for case in cases.read_text("utf-8").split("- ")[1:4]), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def server(folder: Path, demo_checkpoint: Path) -> Iterator[Server]:
    shown = {name: keys.add(folder / "keys", name) for name in ("alice", "bob")}
    given = {
        "QAIO_MODEL": "demo",
        "QAIO_THREADS": "1",
        "QAIO_PROMPTS": str(folder / "prompts"),
        "QAIO_API_KEYS_FILE": str(folder / "keys"),
        "QAIO_FIT_FILE": str(folder / "fits.json"),
        "QAIO_PROMPT_EDIT": "1",
        "QAIO_ADMINS": "alice",
    }
    with serve(given) as start:
        server = start()
        server.app.config["KEYS"] = shown
        yield server


def ask(server: Server, method: str, path: str, body: Any = None, key: str = "alice") -> TestResponse:
    headers = {"X-API-Key": server.app.config["KEYS"][key]}
    return server.client.open(f"/v1/prompts/{path}", method=method, json=body, headers=headers)


def problem(answer: TestResponse) -> tuple[int, str]:
    error = answer.get_json()["error"]
    return answer.status_code, error["code"]


def check_document(server: Server, method: str, path: str, answer: TestResponse) -> None:
    document = server.client.get("/openapi.json", headers=_key(server)).get_json()
    assert_documented(document, method, path, answer.status_code, answer.get_json())


def prompt_of(folder: Path, task: str) -> str:
    return (folder / "prompts" / task / "prompt.md").read_text("utf-8")


def test_the_prompt_that_is_served_is_shown(server: Server, folder: Path) -> None:
    answer = ask(server, "GET", "sentiment")
    assert answer.get_json() == {"task": "sentiment", "prompt": prompt_of(folder, "sentiment"), "cases": 44}
    check_document(server, "GET", "/v1/prompts/{task}", answer)
    assert problem(ask(server, "GET", "sentimnet")) == (404, "unknown_task")


def test_the_same_prompt_does_as_well_as_itself(server: Server, folder: Path) -> None:
    answer = ask(server, "POST", "sentiment/trial", {"prompt": prompt_of(folder, "sentiment")})
    check_document(server, "POST", "/v1/prompts/{task}/trial", answer)
    tried = answer.get_json()
    assert tried["before"] == tried["now"] and tried["now"]["accuracy"] > 0.9
    assert len(tried["results"]) == 44
    assert all(one["before"] == one["now"] for one in tried["results"])
    listed = server.client.get("/v1/tasks", headers=_key(server)).get_json()["tasks"]
    gold = next(task["gold"] for task in listed if task["name"] == "sentiment")
    assert (tried["now"]["accuracy"], tried["now"]["fitted"]) == (gold["accuracy"], gold["fitted"])


def test_a_worse_prompt_shows_what_it_breaks_and_nobody_else_is_answered_by_it(server: Server, folder: Path) -> None:
    text = "等了两个小时没人理我，太失望了"
    before = server.client.post("/v1/tasks/sentiment", json={"text": text}, headers=_key(server)).get_json()
    head, _, _ = prompt_of(folder, "sentiment").rpartition("---")
    tried = ask(server, "POST", "sentiment/trial", {"prompt": f"{head}---\nuser: 今天星期几？$text\n"}).get_json()
    assert tried["now"]["accuracy"] < tried["before"]["accuracy"]
    broken = [one for one in tried["results"] if one["now"]["problem"] and not one["before"]["problem"]]
    assert broken and all(one["now"]["answer"] != one["expected"] == one["before"]["answer"] for one in broken)
    after = server.client.post("/v1/tasks/sentiment", json={"text": text}, headers=_key(server)).get_json()
    assert after == before
    assert prompt_of(folder, "sentiment").startswith(head)


def test_texts_are_tried_too_and_a_prompt_of_another_kind_stands_alone(server: Server, folder: Path) -> None:
    prompt = prompt_of(folder, "keywords")
    tried = ask(server, "POST", "keywords/trial", {"prompt": prompt}).get_json()
    assert len(tried["results"]) == 3 and tried["before"] == tried["now"]
    assert all(one["now"]["answer"] for one in tried["results"])
    other = ask(server, "POST", "keywords/trial", {"prompt": prompt.replace("kind: list, max_items: 8", "kind: text")})
    assert other.get_json()["before"] is None and other.get_json()["results"][0]["before"] is None


def test_a_prompt_that_fills_the_context_is_wrong_on_every_case(server: Server, folder: Path) -> None:
    prompt = prompt_of(folder, "sentiment").replace("输入：$text", "很长" * 3000 + "输入：$text")
    answer = ask(server, "POST", "sentiment/trial", {"prompt": prompt})
    assert answer.status_code == 200, answer.text
    assert {one["now"]["problem"] for one in answer.get_json()["results"]} == {
        "提示词加输入和回复最多 1536 个 token，请缩短提示词"
    }
    assert answer.get_json()["now"]["accuracy"] == 0


def test_what_is_wrong_is_told_in_the_language_that_is_asked_for(server: Server) -> None:
    path, headers = "/v1/prompts/sentiment/trial", _key(server)
    told = {
        language: server.client.post(path, json={"prompt": "你好"}, headers=headers | {"Accept-Language": language})
        for language in ("zh", "en")
    }
    messages = {language: answer.get_json()["error"]["message"] for language, answer in told.items()}
    assert messages["zh"].startswith("这样的任务不能用：sentiment/prompt.md：(front matter)：缺失或没有结束。改法：")
    assert messages["en"].startswith("such a task cannot be used: sentiment/prompt.md: (front matter): is missing")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"prompt": "你好"}, "sentiment/prompt.md: (front matter): is missing or not closed"),
        ({"prompt": 3}, "prompt"),
        ({}, "prompt"),
        ({"prompt": "x", "cases": []}, "cases"),
    ],
)
def test_a_prompt_that_is_none_is_refused_with_what_is_wrong(server: Server, body: Any, told: str) -> None:
    answer = ask(server, "POST", "sentiment/trial", body)
    assert answer.status_code == 400 and told in answer.get_json()["error"]["message"] + str(
        answer.get_json()["error"]["param"]
    )


def test_a_changed_prompt_becomes_a_new_folder_once(server: Server, folder: Path) -> None:
    body = {"name": "sentiment_shop", "prompt": prompt_of(folder, "sentiment") + "\n"}
    answer = ask(server, "POST", "sentiment/save", body)
    assert answer.get_json() == {"task": "sentiment_shop", "next": "qwen-allinone prompts reload"}
    check_document(server, "POST", "/v1/prompts/{task}/save", answer)
    made = folder / "prompts" / "sentiment_shop"
    assert {file.name for file in made.iterdir()} == {"prompt.md", "cases.yaml"}
    assert problem(ask(server, "POST", "sentiment/save", body)) == (409, "task_taken")
    wrong = ask(server, "POST", "sentiment/save", body | {"name": "../out"})
    assert wrong.status_code == 400 and wrong.get_json()["error"]["param"] == "name"
    shutil.rmtree(made)


def test_where_nothing_can_be_written_it_says_so(server: Server, folder: Path) -> None:
    away = folder / "away"
    (folder / "prompts").rename(away)
    try:
        # What is served was read at the start, so only what is to be written fails; what is read is not there either.
        answer = ask(server, "POST", "sentiment/save", {"name": "shop", "prompt": "x"})
        assert problem(answer) == (503, "prompts_unwritable")
    finally:
        away.rename(folder / "prompts")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "sentiment", None),
        ("POST", "sentiment/trial", {"prompt": "x"}),
        ("POST", "sentiment/save", {"name": "shop", "prompt": "x"}),
    ],
)
def test_only_those_who_may_edit(server: Server, method: str, path: str, body: Any) -> None:
    assert problem(ask(server, method, path, body, key="bob")) == (403, "prompts_forbidden")
    stranger = server.client.open(f"/v1/prompts/{path}", method=method, json=body)
    assert stranger.status_code == 401


def test_it_is_off_unless_somebody_turned_it_on(brief: str, demo_checkpoint: Path) -> None:
    given = {"QAIO_MODEL": "demo", "QAIO_THREADS": "1", "QAIO_PROMPTS": brief, "QAIO_FIT": "off"}
    with serve(given) as start:
        server = start(ready=False)
        assert server.client.get("/v1/prompts/sentiment").status_code == 404
        assert not any("prompts" in path for path in server.client.get("/openapi.json").get_json()["paths"])


def _key(server: Server) -> dict[str, str]:
    return {"X-API-Key": server.app.config["KEYS"]["alice"]}
