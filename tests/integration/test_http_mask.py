"""`mask` of a task's input: neither the model nor a log sees the number, the caller does. And `below` of a request."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qwen_allinone.engine import FinishReason, Result
from qwen_allinone.model.tokenizer import Tokenizer
from qwen_allinone.service.request import Request
from tests.integration.conftest import Server, serve
from tests.support.events import read_events, without_pings

NUMBER = "13812345678"
REPLY = "好的，我们会打[电话1]联系您"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("masked")


@pytest.fixture(scope="module")
def server(prompts_folder: Path, demo_checkpoint: Path, folder: Path) -> Iterator[Server]:
    prompts = Path(shutil.copytree(prompts_folder, folder / "prompts"))
    for name in ("chat", "sentiment", "keywords"):
        file = prompts / name / "prompt.md"
        text = file.read_text("utf-8")
        assert "{max_tokens: " in text
        file.write_text(text.replace("{max_tokens: ", "{mask: [phone, email], max_tokens: ", 1), "utf-8")
    given = {
        "QAIO_MODEL": "demo", "QAIO_THREADS": "1", "QAIO_PROMPTS": str(prompts), "QAIO_LOG_TEXT": "1",
        "QAIO_FEEDBACK_FILE": str(folder / "feedback.db"), "QAIO_SESSIONS_FILE": str(folder / "sessions.db"),
    }  # fmt: skip
    with serve(given) as start:
        yield start()


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text that became tokens."""
    texts, encode = list[str](), Tokenizer.encode

    def noting(self: Tokenizer, text: str) -> list[int]:
        texts.append(text)
        return encode(self, text)

    monkeypatch.setattr(Tokenizer, "encode", noting)
    return texts


@pytest.fixture
def replying(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model answers every prompt with REPLY."""
    ids = server.service.codec.tokenizer.encode(REPLY)

    def generate(self: Request, name: str, prompt: Sequence[int], sampling: Any, reply: Any = None, *_: Any) -> Result:
        if reply:
            for token in ids:
                reply.hear(0, token, None)
            ended: Future[None] = Future()
            ended.set_result(None)
            reply.follow([SimpleNamespace(future=ended)], time.monotonic() + 5)
        return Result(FinishReason.STOP, ids=tuple(ids), prompt_tokens=1, reused_tokens=0)

    monkeypatch.setattr(Request, "generate", generate)


@pytest.mark.usefixtures("replying")
def test_a_reply_has_the_number_again_that_the_model_and_the_log_never_saw(
    server: Server, seen: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="qwen_allinone.request")
    answer = server.post("/chat", {"text": f"我很生气，打{NUMBER}给我"})
    assert answer.get_json()["response"] == REPLY.replace("[电话1]", NUMBER)
    assert any("[电话1]" in text for text in seen) and not any(NUMBER in text for text in seen)
    (record,) = [record for record in caplog.records if record.name == "qwen_allinone.request"]
    assert "[电话1]" in str(vars(record)["inputs"]) + str(vars(record)["outputs"])
    assert NUMBER not in str(vars(record))


@pytest.mark.usefixtures("replying")
def test_a_stream_and_a_list_have_it_too(server: Server, seen: list[str]) -> None:
    stream = server.post("/chat", {"text": f"打{NUMBER}给我", "stream": True})
    events = without_pings(read_events([stream.data]))
    deltas = "".join(event.data["text"] for event in events if event.name == "delta")
    assert deltas == REPLY.replace("[电话1]", NUMBER)
    items = server.post("/v1/tasks/keywords", {"text": f"打{NUMBER}"}).get_json()["items"]
    assert NUMBER in "".join(items)
    assert not any(NUMBER in text for text in seen)


@pytest.mark.usefixtures("replying")
def test_a_conversation_keeps_what_was_said_and_shows_the_model_none_of_it(server: Server, seen: list[str]) -> None:
    id = server.post("/chat", {"text": f"我的电话是{NUMBER}", "session": True}).get_json()["session_id"]
    server.post("/chat", {"text": "再说一遍，另一个是13912345678", "session_id": id})
    turns = server.client.get(f"/v1/sessions/{id}").get_json()["turns"]
    assert NUMBER in turns[0]["text"] and NUMBER in turns[1]["response"]
    assert not any(NUMBER in text or "13912345678" in text for text in seen)


def test_a_correction_holds_no_hidden_number(server: Server, folder: Path) -> None:
    headers = {"X-Request-Id": "masked"}
    server.client.post("/v1/tasks/sentiment", json={"text": f"打{NUMBER}"}, headers=headers)
    with closing(sqlite3.connect(folder / "feedback.db")) as db:
        assert db.execute("SELECT inputs FROM answers WHERE request = 'masked'").fetchall() == [
            ('{"text": "打[电话1]"}',)
        ]


def test_a_number_that_fills_the_cap_counts_as_its_word_and_a_text_beyond_it_is_refused(server: Server) -> None:
    assert server.post("/v1/tasks/sentiment", {"text": "a" * 100_000 + NUMBER}).status_code == 400


@pytest.mark.parametrize(("below", "expected"), [(0.0, "a label"), (1.0, None)])
def test_below_its_bound_a_label_is_not_given(server: Server, below: float, expected: str | None) -> None:
    answer = server.post("/v1/tasks/sentiment", {"text": "还行吧", "below": below, "detail": True}).get_json()
    likeliest = max(answer["detail"]["probabilities"], key=answer["detail"]["probabilities"].get)
    assert answer["label"] == (likeliest if expected else None)


@pytest.mark.parametrize("below", ["0.5", -0.1, 1.1, True, [0.5]])
def test_a_bound_that_is_no_share_is_refused(server: Server, below: object) -> None:
    refused = server.post("/v1/tasks/sentiment", {"text": "还行吧", "below": below})
    assert refused.status_code == 400 and refused.get_json()["error"]["param"] == "below"


def test_only_label_tasks_have_a_bound(server: Server) -> None:
    assert server.post("/v1/tasks/keywords", {"text": "还行吧", "below": 0.5}).status_code == 400
