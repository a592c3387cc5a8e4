"""POST /v1/responses, as OpenAI's clients know it: a reply that the next request may follow by its id.

GET and DELETE /v1/responses/<id>: what is kept of it, and the end of that.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

from flask import Response, jsonify
from flask_openapi import OpenAPI
from pydantic import BaseModel, Field

from qwen_allinone.engine import FinishReason, Logprobs
from qwen_allinone.http import sse
from qwen_allinone.http.backend import Backend
from qwen_allinone.http.error_answers import NestedErrorBody, error_responses
from qwen_allinone.http.reply_fields import ChosenToken, chosen_tokens
from qwen_allinone.http.request_state import state
from qwen_allinone.http.request_terms import needs_engine, parameters, terms
from qwen_allinone.http.response_fields import ResponseRequest
from qwen_allinone.service import Answer, Codec, Terms
from qwen_allinone.service.completions import Utterance, complete
from qwen_allinone.state import Conversation, KeptResponse, Responses


class OutputText(BaseModel):
    """What the model said."""

    type: Literal["output_text"]
    text: str
    annotations: list[str] = Field(description="Always empty")
    logprobs: list[ChosenToken]


class OutputMessage(BaseModel):
    """The reply."""

    id: str
    type: Literal["message"]
    status: Literal["in_progress", "completed", "incomplete"]
    role: Literal["assistant"]
    content: list[OutputText]


class IncompleteDetails(BaseModel):
    """Why a reply was cut."""

    reason: Literal["max_output_tokens"]


class InputTokensDetails(BaseModel):
    """Tokens of the prompt that did not have to be computed; writing them costs nothing here."""

    cached_tokens: int
    cache_write_tokens: int


class OutputTokensDetails(BaseModel):
    """Always 0."""

    reasoning_tokens: int


class ResponseUsage(BaseModel):
    """Tokens."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int


class ResponseObject(BaseModel):
    """A response; beside these fields those of the request with the values that were used."""

    id: str = Field(description="For previous_response_id")
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Literal["in_progress", "completed", "incomplete"]
    error: None
    incomplete_details: IncompleteDetails | None
    model: str
    output: list[OutputMessage]
    usage: ResponseUsage | None


class ResponsePath(BaseModel):
    """Which response."""

    response_id: str = Field(description="POST /v1/responses 返回的 id")


class ResponseDeleted(BaseModel):
    """The response is gone."""

    id: str
    object: Literal["response"]
    deleted: Literal[True]


_EVENTS = (
    "response.created、response.in_progress、response.output_item.added、response.content_part.added、"
    "若干 response.output_text.delta，各项的 done，最后是 response.completed 或 response.incomplete；"
    "中途失败则以 error 结束"
)


def register(app: OpenAPI, backend: Backend) -> None:
    """Add the routes to `app`."""
    kept = backend.responses

    @app.post(
        "/v1/responses",
        summary="回应，可接着说（与 OpenAI 的接口相同）",
        responses={200: ResponseObject, **error_responses(NestedErrorBody, 400, 404, 413, 415, 429, 500, 503, 504)},
        openapi_extensions=parameters() | sse.documented(_EVENTS),
    )
    @needs_engine
    def create_response(body: ResponseRequest) -> Response:
        backend.check_model(body.model)
        asked = terms(backend)
        draft = _Draft(body, backend.service.codec)
        if body.stream:
            return sse.respond(lambda out: _stream(backend, draft, asked, out), backend)
        with _conversation(backend, draft, asked) as (said, place):
            _complete(backend, said, draft, asked)
            _keep(draft, said, place)
        return jsonify(draft.shown)

    errors = error_responses(NestedErrorBody, 404, 500, 503)

    @app.get("/v1/responses/<response_id>", summary="读取一个保存的回复", responses={200: ResponseObject, **errors})
    def read_response(path: ResponsePath) -> Response:
        return jsonify(kept.read(path.response_id, state.caller).shown)

    @app.delete("/v1/responses/<response_id>", summary="删除一个保存的回复", responses={200: ResponseDeleted, **errors})
    def delete_response(path: ResponsePath) -> Response:
        kept.delete(path.response_id, state.caller)
        return jsonify(ResponseDeleted(id=path.response_id, object="response", deleted=True).model_dump())


class _Draft:
    """A response on its way, and how it looks."""

    def __init__(self, body: ResponseRequest, codec: Codec) -> None:
        self.body, self.wanted = body, body.wanted(codec.sampling_defaults)
        self.id = Responses.new_id()
        self.answer: Answer | None = None
        self._tokenizer = codec.tokenizer
        self._item_id = f"msg_{uuid.uuid4().hex}"
        self._created = int(time.time())
        # The request with the values that are used, as it stands in every response.
        drawn = {"temperature": self.wanted.sampling.temperature, "top_p": self.wanted.sampling.top_p}
        self._asked = body.model_dump(exclude=_OURS, by_alias=True) | drawn

    @property
    def status(self) -> str:
        if self.answer is None:
            return "in_progress"
        return "incomplete" if self.answer.result.finish_reason is FinishReason.LENGTH else "completed"

    @property
    def shown(self) -> dict[str, Any]:
        """All of it, as far as it has come."""
        status = self.status
        return {
            "id": self.id,
            "object": "response",
            "created_at": self._created,
            "completed_at": int(time.time()) if self.answer else None,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "output": [self.item] if self.answer else [],
            "usage": _usage(self.answer) if self.answer else None,
        } | self._asked

    @property
    def item(self) -> dict[str, Any]:
        """The reply as an item of the output: empty while it is not whole."""
        content = [self.part] if self.answer else []
        head = {"id": self._item_id, "type": "message", "status": self.status, "role": "assistant"}
        return head | {"content": content}

    @property
    def part(self) -> dict[str, Any]:
        """The text of the reply, likewise."""
        text = self.answer.text if self.answer else ""
        told = self.logprobs(self.answer.result.logprobs) if self.answer else []
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": told}

    @property
    def place(self) -> dict[str, Any]:
        """Where the text is."""
        return {"item_id": self._item_id, "output_index": 0, "content_index": 0}

    def logprobs(self, told: Sequence[Logprobs]) -> list[dict[str, Any]]:
        return chosen_tokens(told, self._tokenizer)


# What is said and how it is sent is no part of a response.
_OURS = {"input", "stream", "stream_options", "include"}


def _usage(answer: Answer) -> dict[str, Any]:
    result = answer.result
    return ResponseUsage(
        input_tokens=result.prompt_tokens,
        input_tokens_details=InputTokensDetails(cached_tokens=result.reused_tokens, cache_write_tokens=0),
        output_tokens=len(result.ids),
        output_tokens_details=OutputTokensDetails(reasoning_tokens=0),
        total_tokens=result.prompt_tokens + len(result.ids),
    ).model_dump()


@contextmanager
def _conversation(
    backend: Backend, draft: _Draft, asked: Terms
) -> Iterator[tuple[Sequence[Utterance], Conversation | None]]:
    """What has been said up to the reply, and a place for the response if it is to be kept.

    Raises:
        ResponseNotFound, OwnerFull, StoreUnavailable.
    """
    body, responses = draft.body, backend.responses
    earlier: Sequence[Utterance] = ()
    if body.previous_response_id is not None:
        param = "previous_response_id"
        earlier = responses.read(body.previous_response_id, asked.caller, param=param).messages
    said = [*earlier, *body.messages]
    if not body.store:
        yield said, None
        return
    with responses.begin(draft.id, asked.caller, deadline_s=asked.deadline_s) as place:
        yield said, place


def _complete(backend: Backend, said: Sequence[Utterance], draft: _Draft, asked: Terms) -> None:
    instructions = [("system", draft.body.instructions)] if draft.body.instructions else []
    (draft.answer,) = complete(backend.service, [*instructions, *said], draft.wanted, asked, "input")


def _keep(draft: _Draft, said: Sequence[Utterance], place: Conversation | None) -> None:
    if place and draft.answer:
        kept = KeptResponse((*said, ("assistant", draft.answer.text)), draft.shown)
        place.keep_turn(kept.turn(time.time()))


def _stream(backend: Backend, draft: _Draft, asked: Terms, out: sse.Writer) -> None:
    """Send a response as events."""
    events = _Events(out, draft)
    with _conversation(backend, draft, asked) as (said, place):
        _complete(backend, said, draft, replace(asked, watch=out.watch, listener=events))
        events.text_ended()
        out.ping()  # whoever has left by now goes no further: a response that nobody got whole is not kept
        _keep(draft, said, place)
        events.send(f"response.{draft.status}", response=draft.shown)


class _Events:
    """Tells of a response while it is made."""

    def __init__(self, out: sse.Writer, draft: _Draft) -> None:
        self._out, self._draft, self._number = out, draft, 0

    def send(self, kind: str, **fields: Any) -> None:
        """Send an event; they are numbered."""
        self._out.send({"type": kind, "sequence_number": self._number} | fields, event=kind)
        self._number += 1

    def submitted(self) -> None:
        draft = self._draft
        self.send("response.created", response=draft.shown)
        self.send("response.in_progress", response=draft.shown)
        self.send("response.output_item.added", output_index=0, item=draft.item)
        self.send("response.content_part.added", **draft.place, part=draft.part)

    def labelled(self, sentiment: Answer, care: Answer | None) -> None:
        raise AssertionError("a completion has no sentiment")

    def delta(self, text: str, choice: int = 0, logprobs: Sequence[Logprobs] = ()) -> None:
        told = self._draft.logprobs(logprobs)
        self.send("response.output_text.delta", **self._draft.place, delta=text, logprobs=told)

    def text_ended(self) -> None:
        """After everything is said."""
        draft, part = self._draft, self._draft.part
        self.send("response.output_text.done", **draft.place, text=part["text"], logprobs=part["logprobs"])
        self.send("response.content_part.done", **draft.place, part=part)
        self.send("response.output_item.done", output_index=0, item=draft.item)
