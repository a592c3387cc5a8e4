"""POST /chat: a sentiment and a warm reply."""

from __future__ import annotations

from flask import Response, jsonify
from flask_openapi import OpenAPI
from pydantic import BaseModel, Field

from qwen_allinone.allinone import AllInOne
from qwen_allinone.errors import InvalidInput
from qwen_allinone.http import demand
from qwen_allinone.http.body import Body
from qwen_allinone.http.errors import ErrorBody, error_responses
from qwen_allinone.http.presence import Presence
from qwen_allinone.http.usage import caller, note
from qwen_allinone.state import Conversation, Sessions


class ChatRequest(Body):
    """What the user said."""

    text: str = Field(description="要分析和回应的文字", examples=["今天心情特别差，工作也不顺利"])
    session: bool | None = Field(None, description="true：开始新的会话，回答中带有 session_id")
    session_id: str | None = Field(None, description="继续这个会话")


class ChatResponse(BaseModel):
    """The label found and the reply."""

    sentiment: str = Field(description="正面 或 负面")
    response: str = Field(description="温暖的回应")
    session_id: str | None = Field(None, description="会话的编号；只在会话中有此字段")


def join(sessions: Sessions, body: ChatRequest) -> Conversation:
    """The conversation that a request asks for, held until it is closed; if it asks for none, one that keeps nothing.

    Raises:
        InvalidInput: the two fields contradict each other. Sessions.join's errors.
    """
    if body.session is False and body.session_id is not None:
        raise InvalidInput("session 为 false 时不能带 session_id，请去掉其中一个", param="session")
    return sessions.join(body.session_id, caller(), new=bool(body.session), deadline_s=demand.timeout_s())


def register(app: OpenAPI, service: AllInOne, sessions: Sessions, presence: Presence) -> None:
    """Add the route to `app`."""

    @app.post(
        "/chat",
        summary="判断情感并温暖地回应",
        responses={200: ChatResponse, **error_responses(ErrorBody, 400, 404, 409, 413, 415, 500, 503, 504)},
        openapi_extensions=demand.TIMEOUT_PARAMETER,
    )
    @demand.needs_engine
    def chat(body: ChatRequest) -> Response:
        with join(sessions, body) as conversation:
            answer = service.chat(
                body.text, history=conversation.turns, deadline_s=demand.timeout_s(), watch=presence.watch
            )
            note(answer.sentiment)
            note(answer.reply)
            conversation.complete(answer.turn)
        return jsonify(sentiment=answer.sentiment.label, response=answer.reply.text, **conversation.fields)
