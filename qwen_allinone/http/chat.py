"""POST /chat: a sentiment and a warm reply, at once or as they are made."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from flask import Response, jsonify
from flask_openapi import OpenAPI
from pydantic import BaseModel, ConfigDict, Field

from qwen_allinone.engine import Logprobs
from qwen_allinone.errors import InvalidInput
from qwen_allinone.http import detail, sse
from qwen_allinone.http.backend import Backend
from qwen_allinone.http.body import Body
from qwen_allinone.http.detail import Detail
from qwen_allinone.http.error_answers import ErrorBody, error_responses
from qwen_allinone.http.request_terms import needs_engine, parameters, terms
from qwen_allinone.service import Answer, ChatAnswer, Terms, UserMemories, whose
from qwen_allinone.state import Conversation, Sessions
from qwen_allinone.wording import said


class ChatRequest(Body):
    """What the user said."""

    # What the page of the documentation proposes to send: a session_id made up there would be a 404.
    model_config = ConfigDict(json_schema_extra={"example": {"text": "今天心情特别差，工作也不顺利"}})

    text: str = Field(description="要分析和回应的文字", examples=["今天心情特别差，工作也不顺利"])
    stream: bool | None = Field(
        None, description="true：边生成边发送（SSE）；缺省时看请求头 Accept 是否为 text/event-stream"
    )
    session: bool | None = Field(None, description="true：开始新的会话，回答中带有 session_id")
    session_id: str | None = Field(None, description="继续这个会话")
    user: str | None = Field(None, description="说话的人：记得他讲过的自己的情况，并记住新的；需要 QAIO_MEMORY=1")
    memory: bool | None = Field(None, description="false：这一次既不用也不记；缺省时有 user 就用也记")
    detail: bool = detail.WANTED


_EVENTS = "事件依次为 sentiment、若干 delta、done；中途失败则以 error 结束，没有 done 就是不完整的"


class ReplyDetail(Detail):
    """How a reply came about."""

    told: str | None = Field(None, description="The mood that the prompt of the reply heard; absent if it heard none")


class MemoryUsed(BaseModel):
    """A memory that the prompt of the reply was told."""

    id: str
    text: str


class ChatDetail(BaseModel):
    """How the two halves of an answer came about."""

    sentiment: Detail
    response: ReplyDetail
    care: bool | None = Field(None, description="Whether the reply is the vetted text; absent without the task care")
    care_probability: float | None = Field(None, description="Of the label at which the task care fires")
    memories: list[MemoryUsed] | None = Field(
        None, description="What the reply was reminded of, the best first; absent without user"
    )


class ChatResponse(BaseModel):
    """The label found and the reply."""

    sentiment: str = Field(description="正面 或 负面")
    response: str = Field(description="温暖的回应")
    session_id: str | None = Field(None, description="会话的编号；只在会话中有此字段")
    detail: ChatDetail | None = Field(None, description="Only if asked for")


def register(app: OpenAPI, backend: Backend) -> None:
    """Add the route to `app`."""
    service = backend.service

    @app.post(
        "/chat",
        summary="判断情感并温暖地回应",
        responses={200: ChatResponse, **error_responses(ErrorBody, 400, 404, 409, 413, 415, 429, 500, 503, 504)},
        openapi_extensions=parameters() | sse.documented(_EVENTS),
    )
    @needs_engine
    def chat(body: ChatRequest) -> Response:
        asked = terms(backend, detail=body.detail)
        if sse.asked_for(body.stream):
            return sse.respond(lambda out: _stream(backend, body, asked, out), backend)
        user = _user(backend, body, asked) if body.user is not None or body.memory else None
        with _join(backend.sessions, body, asked) as conversation:
            history = conversation.turns if conversation else ()
            answer = service.chat(body.text, asked, history=history, remind=user.remind if user else None)
            if user:
                user.note(answer)
            if conversation:
                conversation.keep_turn(answer.turn)
        shown: dict[str, Any] = {"sentiment": answer.sentiment.label, "response": answer.reply.text}
        return jsonify(shown | _fields(conversation) | _detail(body, answer, user))


def _join(sessions: Sessions, body: ChatRequest, asked: Terms) -> AbstractContextManager[Conversation | None]:
    """The conversation that a request asks for, held until it is closed; None if it asks for none.

    Raises:
        InvalidInput: the two fields contradict each other. Sessions.join's errors.
    """
    if body.session is False and body.session_id is not None:
        raise InvalidInput(said("session_id_without"), param="session")
    if body.session_id is None and not body.session:
        return nullcontext()
    return sessions.join(body.session_id, asked.caller, deadline_s=asked.deadline_s)


def _user(backend: Backend, body: ChatRequest, asked: Terms) -> UserMemories | None:
    """The memories that a request is to use and to add to; None if it is to do without.

    Raises:
        InvalidInput: no name of a user, or the fields do not go together. Memories.of's errors.
    """
    if body.user is None:
        raise InvalidInput(said("memory_whose"), param="memory")
    user = whose(asked.caller, body.user)
    if body.memory is False:
        return None
    if backend.memories is None:
        raise InvalidInput(said("memory_off_user"), param="user")
    return backend.memories.of(user)


def _fields(conversation: Conversation | None) -> dict[str, str]:
    return conversation.fields if conversation else {}


def _detail(body: ChatRequest, answer: ChatAnswer, user: UserMemories | None) -> dict[str, Any]:
    if not body.detail:
        return {}
    halves = {"sentiment": answer.sentiment, "response": answer.reply}
    shown: dict[str, Any] = {name: detail.describe(half) for name, half in halves.items()}
    if answer.told is not None:
        shown["response"]["told"] = answer.told
    if answer.care:
        shown |= {"care": answer.care.fired, "care_probability": detail.first_probability(answer.care)}
    if user:
        shown["memories"] = [{"id": memory.id, "text": memory.text} for memory in answer.recalled]
    return {"detail": shown}


def _stream(backend: Backend, body: ChatRequest, asked: Terms, out: sse.Writer) -> None:
    """Send a chat as events: `sentiment`, `delta`s, `done`."""
    with _join(backend.sessions, body, asked) as conversation:
        user = _user(backend, body, asked) if body.user is not None or body.memory else None
        heard = replace(asked, watch=out.watch, listener=_Events(out, conversation))
        history = conversation.turns if conversation else ()
        answer = backend.service.chat(body.text, heard, history=history, remind=user.remind if user else None)
        parts = [answer.sentiment, *([answer.care] if answer.care else []), answer.reply]
        done: dict[str, Any] = {
            "finish_reason": answer.reply.result.finish_reason.value,
            "usage": detail.usage(*parts),
            "timings": detail.timings(*parts),
        }
        if user or conversation:
            out.ping()  # whoever has left by now goes no further: a turn that nobody got whole is not kept
        if user:
            user.note(answer)
        if conversation:
            conversation.keep_turn(answer.turn)
        out.tell_alerts()
        out.send(done | _detail(body, answer, user), event="done")


class _Events:
    """Tells of a chat while it is made."""

    def __init__(self, out: sse.Writer, conversation: Conversation | None) -> None:
        self._out, self._conversation = out, conversation

    def submitted(self) -> None:
        self._out.ping()  # the status and headers leave

    def labelled(self, sentiment: Answer, care: Answer | None) -> None:
        label = {"label": sentiment.label, "emoji": sentiment.emoji, "probability": detail.probability(sentiment)}
        fired = {"care": True} if care and care.fired else {}
        self._out.send(label | fired | _fields(self._conversation), event="sentiment")

    def delta(self, text: str, choice: int = 0, logprobs: Sequence[Logprobs] = ()) -> None:
        self._out.send({"text": text}, event="delta")
