"""Conversations over HTTP, as tests of them begin, continue and read one."""

from __future__ import annotations

from typing import Any

from werkzeug.test import TestResponse

from tests.integration.conftest import Server

TEXTS = ["今天被领导批评了", "还要加班到半夜", "同事给我带了晚饭，很暖心", "明天还要早起"]


def chat(server: Server, text: str, **fields: Any) -> TestResponse:
    return server.post("/chat", {"text": text, **fields})


def new(server: Server, *texts: str) -> str:
    """A session of so many turns."""
    session = str(chat(server, texts[0], session=True).get_json()["session_id"])
    for text in texts[1:]:
        assert chat(server, text, session_id=session).status_code == 200
    return session


def stored(server: Server, session: str, **headers: str) -> list[dict[str, Any]]:
    answer = server.client.get(f"/v1/sessions/{session}", headers=headers)
    assert answer.status_code == 200, answer.data
    turns: list[dict[str, Any]] = answer.get_json()["turns"]
    return turns
