"""POST /chat: a sentiment and a warm reply."""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify
from flask_openapi import OpenAPI
from pydantic import BaseModel, Field

from qwen_allinone.allinone import AllInOne
from qwen_allinone.http import demand
from qwen_allinone.http.body import Body
from qwen_allinone.http.detail import WANTED, Detail, describe
from qwen_allinone.http.errors import ErrorBody, error_responses
from qwen_allinone.http.presence import Presence
from qwen_allinone.http.remember import cache_use
from qwen_allinone.http.usage import note


class ChatRequest(Body):
    """What the user said."""

    text: str = Field(description="要分析和回应的文字", examples=["今天心情特别差，工作也不顺利"])
    detail: bool = WANTED


class ChatDetail(BaseModel):
    """How the two halves of an answer came about."""

    sentiment: Detail
    response: Detail


class ChatResponse(BaseModel):
    """The label found and the reply."""

    sentiment: str = Field(description="正面 或 负面")
    response: str = Field(description="温暖的回应")
    detail: ChatDetail | None = Field(None, description="Only if asked for")


def register(app: OpenAPI, service: AllInOne, presence: Presence) -> None:
    """Add the route to `app`."""

    @app.post(
        "/chat",
        summary="判断情感并温暖地回应",
        responses={200: ChatResponse, **error_responses(ErrorBody, 400, 413, 415, 500, 503, 504)},
        openapi_extensions=demand.TIMEOUT_PARAMETER,
    )
    @demand.needs_engine
    def chat(body: ChatRequest) -> Response:
        answer = service.chat(body.text, deadline_s=demand.timeout_s(), watch=presence.watch, cache=cache_use())
        note(answer.sentiment)
        note(answer.reply)
        shown: dict[str, Any] = {"sentiment": answer.sentiment.label, "response": answer.reply.text}
        if body.detail:
            halves = {"sentiment": answer.sentiment, "response": answer.reply}
            shown["detail"] = {name: describe(service, half) for name, half in halves.items()}
        return jsonify(shown)
