"""POST /chat: a sentiment and a warm reply, at once or as they are made."""

from __future__ import annotations

from flask import Response, jsonify
from flask_openapi import OpenAPI
from pydantic import BaseModel, Field

from qwen_allinone.allinone import AllInOne, Answer, Delta, Submitted, Watch
from qwen_allinone.http import demand, detail, limits, sse
from qwen_allinone.http.body import Body
from qwen_allinone.http.errors import ErrorBody, error_responses
from qwen_allinone.http.presence import Presence
from qwen_allinone.http.usage import note


class ChatRequest(Body):
    """What the user said."""

    text: str = Field(description="要分析和回应的文字", examples=["今天心情特别差，工作也不顺利"])
    stream: bool | None = Field(
        None, description="true：边生成边发送（SSE）；缺省时看请求头 Accept 是否为 text/event-stream"
    )


_EVENTS = "事件依次为 sentiment、若干 delta、done；中途失败则以 error 结束，没有 done 就是不完整的"


class ChatResponse(BaseModel):
    """The label found and the reply."""

    sentiment: str = Field(description="正面 或 负面")
    response: str = Field(description="温暖的回应")


def register(app: OpenAPI, service: AllInOne, presence: Presence, *, ping_s: float) -> None:
    """Add the route to `app`."""

    @app.post(
        "/chat",
        summary="判断情感并温暖地回应",
        responses={200: ChatResponse, **error_responses(ErrorBody, 400, 413, 415, 500, 503, 504)},
        openapi_extensions=demand.TIMEOUT_PARAMETER | sse.documented(_EVENTS),
    )
    @demand.needs_engine
    def chat(body: ChatRequest) -> Response:
        deadline_s = demand.timeout_s()
        if sse.asked_for(body.stream):
            return sse.respond(lambda send, watch: _stream(service, body, deadline_s, send, watch), presence, ping_s)
        answer = service.chat(body.text, deadline_s=deadline_s, watch=presence.watch)
        note(answer.sentiment)
        note(answer.reply)
        return jsonify(sentiment=answer.sentiment.label, response=answer.reply.text)


def _stream(service: AllInOne, body: ChatRequest, deadline_s: float | None, send: sse.Send, watch: Watch) -> None:
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
            send(sse.event("sentiment", label))

    try:
        answer = service.chat(body.text, deadline_s=deadline_s, watch=watch, progress=progress)
        both = (answer.sentiment, note(answer.reply))
        done = {
            "finish_reason": answer.reply.result.finish_reason.value,
            "usage": detail.usage(*both),
            "timings": detail.timings(*both),
        }
        send(sse.event("done", done))
    finally:
        limits.charge(generated)
