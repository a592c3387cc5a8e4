"""POST /chat: a sentiment and a warm reply, at once or as they are made."""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify
from flask_openapi import OpenAPI
from pydantic import BaseModel, Field

from qwen_allinone.allinone import AllInOne, Answer, ChatAnswer, Delta, Submitted, Watch
from qwen_allinone.caching import CacheUse
from qwen_allinone.errors import InvalidInput
from qwen_allinone.http import demand, detail, limits, sse
from qwen_allinone.http.body import Body
from qwen_allinone.http.detail import Detail
from qwen_allinone.http.errors import ErrorBody, error_responses
from qwen_allinone.http.presence import Presence
from qwen_allinone.http.remember import cache_use
from qwen_allinone.http.usage import caller, note
from qwen_allinone.state import Conversation, Sessions


class ChatRequest(Body):
    """What the user said."""

    text: str = Field(description="要分析和回应的文字", examples=["今天心情特别差，工作也不顺利"])
    stream: bool | None = Field(
        None, description="true：边生成边发送（SSE）；缺省时看请求头 Accept 是否为 text/event-stream"
    )
    session: bool | None = Field(None, description="true：开始新的会话，回答中带有 session_id")
    session_id: str | None = Field(None, description="继续这个会话")
    detail: bool = detail.WANTED


_EVENTS = "事件依次为 sentiment、若干 delta、done；中途失败则以 error 结束，没有 done 就是不完整的"


class ChatDetail(BaseModel):
    """How the two halves of an answer came about."""

    sentiment: Detail
    response: Detail


class ChatResponse(BaseModel):
    """The label found and the reply."""

    sentiment: str = Field(description="正面 或 负面")
    response: str = Field(description="温暖的回应")
    session_id: str | None = Field(None, description="会话的编号；只在会话中有此字段")
    detail: ChatDetail | None = Field(None, description="Only if asked for")


def join(sessions: Sessions, body: ChatRequest, deadline_s: float | None) -> Conversation:
    """The conversation that a request asks for, held until it is closed; if it asks for none, one that keeps nothing.

    Raises:
        InvalidInput: the two fields contradict each other. Sessions.join's errors.
    """
    if body.session is False and body.session_id is not None:
        raise InvalidInput("session 为 false 时不能带 session_id，请去掉其中一个", param="session")
    return sessions.join(body.session_id, caller(), new=bool(body.session), deadline_s=deadline_s)


def register(app: OpenAPI, service: AllInOne, sessions: Sessions, presence: Presence, *, ping_s: float) -> None:
    """Add the route to `app`."""

    @app.post(
        "/chat",
        summary="判断情感并温暖地回应",
        responses={200: ChatResponse, **error_responses(ErrorBody, 400, 404, 409, 413, 415, 500, 503, 504)},
        openapi_extensions=demand.TIMEOUT_PARAMETER | sse.documented(_EVENTS),
    )
    @demand.needs_engine
    def chat(body: ChatRequest) -> Response:
        deadline_s = demand.timeout_s()
        if sse.asked_for(body.stream):
            use = cache_use()

            def work(send: sse.Send, watch: Watch) -> None:
                with join(sessions, body, deadline_s) as conversation:
                    _stream(service, conversation, body, deadline_s, use, send, watch)

            return sse.respond(work, presence, ping_s)
        with join(sessions, body, deadline_s) as conversation:
            answer = service.chat(
                body.text,
                history=conversation.turns,
                deadline_s=deadline_s,
                watch=presence.watch,
                cache=cache_use(),
            )
            note(answer.sentiment)
            note(answer.reply)
            conversation.complete(answer.turn)
        shown: dict[str, Any] = {"sentiment": answer.sentiment.label, "response": answer.reply.text}
        shown |= conversation.fields
        if body.detail:
            shown["detail"] = _both(service, answer)
        return jsonify(shown)


def _both(service: AllInOne, answer: ChatAnswer) -> dict[str, Any]:
    halves = {"sentiment": answer.sentiment, "response": answer.reply}
    return {name: detail.describe(service, half) for name, half in halves.items()}


def _stream(
    service: AllInOne,
    conversation: Conversation,
    body: ChatRequest,
    deadline_s: float | None,
    use: CacheUse,
    send: sse.Send,
    watch: Watch,
) -> None:
    """Send a chat as events: `sentiment`, `delta`s, `done`."""
    generated = 0

    def progress(made: Submitted | Answer | Delta) -> None:
        nonlocal generated
        if isinstance(made, Submitted):
            if not generated:
                send(sse.PING)  # the status and headers leave
        elif isinstance(made, Delta):
            generated += made.tokens
            if made.text:
                send(sse.event("delta", {"text": made.text}))
        else:
            generated += len(note(made).result.ids)
            label = {"label": made.label, "emoji": made.emoji, "probability": detail.probability(made)}
            send(sse.event("sentiment", label | conversation.fields))

    try:
        answer = service.chat(
            body.text, history=conversation.turns, deadline_s=deadline_s, watch=watch, progress=progress, cache=use
        )
        both = (answer.sentiment, note(answer.reply))
        done: dict[str, Any] = {
            "finish_reason": answer.reply.result.finish_reason.value,
            "usage": detail.usage(*both),
            "timings": detail.timings(*both),
        }
        if body.detail:
            done["detail"] = _both(service, answer)
        if conversation.id:
            send(sse.PING)  # whoever has left by now goes no further: a turn that nobody got whole is not kept
            conversation.complete(answer.turn)
        send(sse.event("done", done))
    finally:
        limits.charge(generated)
