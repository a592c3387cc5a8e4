"""POST /chat where the task `care` fires: the vetted text, and who is told of it. On a tiny checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qwen_allinone.errors import TaskFileError
from tests.integration.conftest import Gate, Later, Server, StartServer, until
from tests.integration.conversing import chat, new, stored
from tests.support.events import read_events, text_of, without_pings
from tests.support.tasks import VETTED, unsure, write_care, write_prompts

TEXT = "今天很开心"


@pytest.fixture
def caring(start_server: StartServer, tiny_checkpoint: Path, tmp_path: Path) -> Callable[..., Server]:
    """A server whose task `care` fires at TEXT: the label that the checkpoint gives it comes first."""
    tiny = {"QAIO_MODEL": str(tiny_checkpoint), "QAIO_CONTEXT": "256", "QAIO_SESSIONS_FILE": str(tmp_path / "s.db")}

    def start(**settings: str) -> Server:
        asked = start_server(QAIO_PROMPTS=str(write_care(write_prompts(tmp_path / "asked"))), **tiny)
        label = asked.post("/v1/tasks/care", {"text": TEXT}).get_json()["label"]
        prompts = write_care(write_prompts(tmp_path / "prompts", chat=unsure(0.99999)), label)
        return start_server(QAIO_PROMPTS=str(prompts), **(tiny | settings))

    return start


def care_total(server: Server) -> float:
    text = server.client.get("/metrics").get_data(as_text=True)
    (line,) = [line for line in text.splitlines() if line.startswith("qaio_care_total")]
    return float(line.split()[1])


def test_the_reply_is_the_vetted_text_and_detail_says_so(caring: Callable[..., Server]) -> None:
    server = caring()
    assert care_total(server) == 0
    plain = server.post("/chat", {"text": TEXT}).get_json()
    assert list(plain) == ["sentiment", "response"] and plain["response"] == VETTED
    detail = server.post("/chat", {"text": TEXT, "detail": True}).get_json()["detail"]
    assert list(detail) == ["sentiment", "response", "care", "care_probability"]
    assert detail["care"] is True and 0.5 < detail["care_probability"] <= 1
    assert "told" not in detail["response"] and detail["response"]["usage"]["total_tokens"] == 0
    assert care_total(server) == 2
    server.post("/v1/tasks/care", {"text": TEXT})
    assert care_total(server) == 2, "chats only"


def test_a_stream_says_so_first_and_at_its_end(caring: Callable[..., Server]) -> None:
    server = caring()
    answer = server.client.post("/chat", json={"text": TEXT, "detail": True, "stream": True}, buffered=False)
    found = without_pings(read_events(answer.iter_encoded()))
    answer.close()
    assert [event.name for event in found] == ["sentiment", "delta", "done"]
    assert found[0].data["care"] is True and found[0].data["label"] in ("正面", "负面")
    assert text_of(found) == VETTED
    assert found[2].data["finish_reason"] == "stop" and found[2].data["detail"]["care"] is True
    assert care_total(server) == 1


def test_the_conversation_goes_on(caring: Callable[..., Server]) -> None:
    server = caring()
    session = new(server, TEXT)
    assert chat(server, TEXT, session_id=session).get_json()["response"] == VETTED
    assert [turn["response"] for turn in stored(server, session)] == [VETTED, VETTED]


def test_both_labels_are_computed_in_one_forward_pass(caring: Callable[..., Server]) -> None:
    server = caring(QAIO_CACHE_MB="0")
    gate = Gate(server)
    gate.shut()
    first = Later(lambda: server.post("/v1/tasks/sentiment", {"text": "the room was clean"}))
    assert gate.entered.wait(30)
    both = Later(lambda: server.post("/chat", {"text": TEXT}))
    until(lambda: server.service.engine.waiting == 2)
    chunks: list[int] = []
    forward: Any = server.service.engine.model.forward  # type: ignore[union-attr]

    def count(given: Any, *rest: Any) -> Any:
        chunks.append(len(given))
        return forward(given, *rest)

    server.service.engine.model.forward = count  # type: ignore[union-attr,method-assign]
    gate.open()
    assert first.answer().status_code == 200 and both.answer().get_json()["response"] == VETTED
    assert chunks[0] == 2


def test_it_is_listed_as_any_task(caring: Callable[..., Server]) -> None:
    server = caring()
    listed = server.client.get("/v1/tasks").get_json()["tasks"]
    assert [task["kind"] for task in listed if task["name"] == "care"] == ["label"]


def test_without_the_folder_nothing_is_said_of_it(server: Server) -> None:
    body = server.post("/chat", {"text": TEXT, "detail": True}).get_json()
    assert list(body["detail"]) == ["sentiment", "response"]


def test_a_folder_without_the_text_stops_the_start(
    start_server: StartServer, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    prompts = write_care(write_prompts(tmp_path / "prompts"))
    (prompts / "care" / "reply.md").unlink()
    with pytest.raises(TaskFileError, match=r"reply\.md"):
        start_server(QAIO_PROMPTS=str(prompts), QAIO_MODEL=str(tiny_checkpoint))
    shutil.rmtree(prompts / "care")
    assert start_server(QAIO_PROMPTS=str(prompts), QAIO_MODEL=str(tiny_checkpoint), QAIO_CONTEXT="256").service


def test_detail_says_which_mood_the_reply_was_told(
    start_server: StartServer, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    prompts = write_prompts(tmp_path / "prompts", chat=unsure(0.99999))
    tiny = start_server(QAIO_PROMPTS=str(prompts), QAIO_MODEL=str(tiny_checkpoint), QAIO_CONTEXT="256")
    body = tiny.post("/chat", {"text": TEXT, "detail": True}).get_json()
    assert body["sentiment"] in ("正面", "负面") and body["detail"]["response"]["told"] == "平静"
