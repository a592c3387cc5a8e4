"""GET and DELETE /v1/sessions/<id>: what a conversation holds, and the end of it. Turns are added by POST /chat."""

from __future__ import annotations

from typing import Literal

from flask import Response, jsonify
from flask_openapi import OpenAPI
from pydantic import BaseModel, Field

from qwen_allinone.http.backend import Backend
from qwen_allinone.http.error_answers import NestedErrorBody, error_responses
from qwen_allinone.http.request_state import state
from qwen_allinone.state import Session
from qwen_allinone.telemetry.formatting import timestamp


class SessionPath(BaseModel):
    """Which session."""

    session_id: str = Field(description="POST /chat 返回的 session_id")


class TurnInfo(BaseModel):
    """One turn, as it was answered."""

    text: str
    sentiment: str
    response: str
    at: str = Field(description="When it was complete, UTC")


class SessionInfo(BaseModel):
    """A session with all its turns, oldest first."""

    session_id: str
    created: str
    expires: str = Field(description="When it is forgotten unless it is used again, UTC")
    max_turns: int
    turns: list[TurnInfo]


class SessionDeleted(BaseModel):
    """The session is gone."""

    session_id: str
    deleted: Literal[True]


def register(app: OpenAPI, backend: Backend) -> None:
    """Add the routes to `app`."""
    sessions = backend.sessions
    errors = error_responses(NestedErrorBody, 404, 500, 503)

    @app.get("/v1/sessions/<session_id>", summary="读取一个会话", responses={200: SessionInfo, **errors})
    def read_session(path: SessionPath) -> Response:
        return jsonify(_describe(sessions.read(path.session_id, state.caller), sessions.max_turns))

    @app.delete("/v1/sessions/<session_id>", summary="删除一个会话", responses={200: SessionDeleted, **errors})
    def delete_session(path: SessionPath) -> Response:
        sessions.delete(path.session_id, state.caller)
        return jsonify(SessionDeleted(session_id=path.session_id, deleted=True).model_dump())


def _describe(session: Session, max_turns: int) -> dict[str, object]:
    turns = [
        TurnInfo(text=turn.text, sentiment=turn.sentiment, response=turn.response, at=timestamp(turn.at, "seconds"))
        for turn in session.turns
    ]
    return SessionInfo(
        session_id=session.id,
        created=timestamp(session.created, "seconds"),
        expires=timestamp(session.expires, "seconds"),
        max_turns=max_turns,
        turns=turns,
    ).model_dump()
