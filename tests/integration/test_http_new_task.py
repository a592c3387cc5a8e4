"""A new job is a new folder: no code, no registration, no training."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from qwen_allinone.errors import TaskFileError
from tests.integration.conftest import Server, StartServer

SPAM = """---
description: 判断一条短信是不是广告
inputs:
  text: {max_tokens: 64}
output:
  kind: label
  labels:
    - {name: 广告}
    - {name: 正常}
  unknown: {name: 说不准, below: BELOW}
decoding: {strategy: greedy, max_new_tokens: 8}
---
短信：$text
类型：
"""
TITLE = """---
description: 为一段文字起一个标题
inputs:
  text: {max_tokens: 64}
  style: {max_tokens: 8}
output:
  kind: text
decoding: {strategy: greedy, max_new_tokens: 6}
---
system: 你为文字起标题，风格：$style
user: $text
"""


@pytest.fixture
def prompts(tmp_path: Path, prompts_folder: Path) -> Path:
    return Path(shutil.copytree(prompts_folder, tmp_path / "prompts"))


def add(prompts: Path, name: str, prompt: str) -> None:
    (prompts / name).mkdir()
    (prompts / name / "prompt.md").write_text(prompt, encoding="utf-8")


def label_of(server: Server, text: str) -> str:
    answer = server.post("/v1/tasks/spam", {"text": text})
    assert answer.status_code == 200
    body = answer.get_json()
    assert list(body) == ["task", "label"] and body["task"] == "spam"
    return str(body["label"])


def test_a_new_folder_is_a_new_endpoint_listed_and_documented(prompts: Path, start_server: StartServer) -> None:
    before = start_server(QAIO_PROMPTS=str(prompts))
    add(prompts, "spam", SPAM.replace("BELOW", "0.01"))
    add(prompts, "title", TITLE)
    assert before.post("/v1/tasks/spam", {"text": "低价促销"}).status_code == 404

    server = start_server(QAIO_PROMPTS=str(prompts))
    assert label_of(server, "低价促销，点击领取") in ("广告", "正常")
    title = server.post("/v1/tasks/title", {"text": "今天去了海边", "style": "活泼"})
    assert list(title.get_json()) == ["task", "text"]

    listed = {task["name"]: task for task in server.client.get("/v1/tasks").get_json()["tasks"]}
    assert listed["spam"]["labels"] == ["广告", "正常"]
    assert listed["title"]["inputs"] == {"text": {"max_tokens": 64}, "style": {"max_tokens": 8}}
    paths = server.client.get("/openapi.json").get_json()["paths"]
    assert paths["/v1/tasks/spam"]["post"]["summary"] == "判断一条短信是不是广告"
    assert "/v1/tasks/title" in paths


def test_the_new_task_refuses_what_its_own_inputs_do_not_allow(prompts: Path, start_server: StartServer) -> None:
    add(prompts, "title", TITLE)
    server = start_server(QAIO_PROMPTS=str(prompts))
    missing = server.post("/v1/tasks/title", {"text": "今天去了海边"})
    assert (missing.status_code, missing.get_json()["error"]["param"]) == (400, "style")
    long = server.post(
        "/v1/tasks/title", {"text": "海边", "style": "活泼而又庄重，热烈而又冷静，简短而又详尽，新潮而又古典"}
    )
    assert (long.status_code, long.get_json()["error"]["code"]) == (400, "input_too_long")
    assert long.get_json()["error"]["param"] == "style"


def test_an_answer_under_the_bar_is_the_unknown_label(prompts: Path, start_server: StartServer) -> None:
    add(prompts, "spam", SPAM.replace("BELOW", "0.999999"))
    server = start_server(QAIO_PROMPTS=str(prompts))
    assert label_of(server, "嗯") == "说不准"


def test_the_old_tasks_and_chat_are_as_before(prompts: Path, server: Server, start_server: StartServer) -> None:
    add(prompts, "spam", SPAM.replace("BELOW", "0.5"))
    with_more = start_server(QAIO_PROMPTS=str(prompts))
    for text in ("今天心情特别差", "我升职了！"):
        labels = {s.post("/chat", {"text": text}).get_json()["sentiment"] for s in (server, with_more)}
        assert len(labels) == 1


def test_a_folder_that_is_no_task_stops_the_start_and_names_the_file(prompts: Path, start_server: StartServer) -> None:
    add(prompts, "spam", SPAM.replace("BELOW", "5"))
    with pytest.raises(TaskFileError, match=r"spam/prompt\.md: output\.unknown\.below: .*Fix: ") as raised:
        start_server(QAIO_PROMPTS=str(prompts))
    assert "\n" not in str(raised.value)
