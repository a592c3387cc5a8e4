"""POST /v1/chat/completions, as OpenAI's clients know it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from flask import Response, jsonify
from flask_openapi import OpenAPI
from pydantic import BaseModel, Field

from qwen_allinone.engine import Logprobs
from qwen_allinone.errors import InvalidInput
from qwen_allinone.http import sse
from qwen_allinone.http.backend import Backend
from qwen_allinone.http.error_answers import NestedErrorBody, error_responses
from qwen_allinone.http.messages import Messages
from qwen_allinone.http.reply_chunks import Chunks
from qwen_allinone.http.reply_fields import (
    ChosenToken,
    ClientNotes,
    CompletionUsage,
    ReplyFields,
    chosen_tokens,
    head,
    usage,
)
from qwen_allinone.http.request_terms import needs_engine, parameters, terms
from qwen_allinone.http.tool_fields import Functions, ToolChoice, Tools
from qwen_allinone.service import Answer, SamplingDefaults, Terms, UserMemories, whose
from qwen_allinone.service.completions import DEFAULT_MAX_TOKENS, Utterance, Wanted, complete
from qwen_allinone.service.reminded import Reminded, complete_reminded
from qwen_allinone.wording import said


class NeutralFields(ReplyFields, ClientNotes):
    """What clients send with the value that asks for nothing: taken with that value, refused with any other."""

    tools: Tools = Field([], description="可以给出，但从不调用，模型也不知道有它们：回复总是文字")
    functions: Functions = Field([], description="同 tools")
    tool_choice: ToolChoice = Field("auto", description="只能是 none 或 auto：从不调用工具")
    function_call: ToolChoice = Field("auto", description="同 tool_choice")
    modalities: list[Literal["text"]] = Field(["text"], max_length=1, fail_fast=True, description="只有文字")
    store: Literal[False] = Field(False, description="只能是 false：回复不会被保存")
    reasoning_effort: Literal["none", "minimal"] = Field("none", description="模型不思考")


class ChatCompletionRequest(NeutralFields):
    """A conversation to be continued. A field that is not listed is refused."""

    messages: Messages
    max_tokens: int | None = Field(None, ge=1, description="回复最多的 token 数；缺省 512；不超过上下文所余")
    max_completion_tokens: int | None = Field(None, ge=1, description="与 max_tokens 相同，二者只能给一个")
    logprobs: bool = Field(False, description="true：附带每个 token 的对数概率，取自温度、惩罚和格式之前")
    top_logprobs: int = Field(0, ge=0, le=20, description="每处再列出概率最大的几个；要有 logprobs: true")
    user: str = Field("", description="要用记忆时是说话的人；否则是客户端自己的备注，不作处理")
    memory: bool | None = Field(
        None,
        description="true：记得 user 讲过的自己的情况，并记住新的，需要 QAIO_MEMORY=1；false：这一次既不用也不记；"
        "缺省时看 QAIO_MEMORY_CHAT_COMPLETIONS",
    )

    def wanted(self, defaults: SamplingDefaults) -> Wanted:
        """As the service knows it; raises InvalidInput where fields contradict each other."""
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise InvalidInput(said("max_tokens_twice"), param="max_completion_tokens")
        if self.top_logprobs and not self.logprobs:
            raise InvalidInput(said("top_logprobs_alone"), param="top_logprobs")
        most = self.max_tokens or self.max_completion_tokens or DEFAULT_MAX_TOKENS
        return self.replies(most, self.top_logprobs if self.logprobs else None, defaults)


class ChatCompletionMessage(BaseModel):
    """The reply."""

    role: Literal["assistant"]
    content: str
    refusal: None


class ChoiceLogprobs(BaseModel):
    """Of each token of a reply."""

    content: list[ChosenToken]
    refusal: None


class ChatCompletionChoice(BaseModel):
    """One reply."""

    index: int
    message: ChatCompletionMessage
    logprobs: ChoiceLogprobs | None
    finish_reason: Literal["stop", "length"]


class ChatCompletion(BaseModel):
    """A whole reply."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatCompletionChoice]
    usage: CompletionUsage


_CHUNKS = "chat.completion.chunk 各块，最后是 data: [DONE]；中途失败则是带 error 的一块，没有 [DONE] 就是不完整的"


def register(app: OpenAPI, backend: Backend) -> None:
    """Add the routes to `app`."""

    @app.post(
        "/v1/chat/completions",
        summary="续写对话（与 OpenAI 的接口相同）",
        responses={200: ChatCompletion, **error_responses(NestedErrorBody, 400, 404, 413, 415, 429, 500, 503, 504)},
        openapi_extensions=parameters() | sse.documented(_CHUNKS),
    )
    @needs_engine
    def chat_completions(body: ChatCompletionRequest) -> Response:
        backend.check_model(body.model)
        wanted, asked = body.wanted(backend.service.codec.sampling_defaults), terms(backend)
        user, messages = _user(backend, body, asked), [message.pair for message in body.messages]
        if body.stream:

            def work(out: sse.Writer) -> None:
                heading = head("chatcmpl", "chat.completion.chunk", body.model)
                chunks = Chunks(out, body, heading, _Shape(backend))
                heard = replace(asked, watch=out.watch, listener=chunks)
                done = _complete(backend, user, messages, wanted, heard)
                if user:
                    out.ping()  # whoever has left by now goes no further: nothing is kept of what nobody got whole
                    _note(user, done)
                chunks.end(done.answers, len(done.recalled) if user else None)

            return sse.respond(work, backend)
        done = _complete(backend, user, messages, wanted, asked)
        if user:
            _note(user, done)
        shape = _Shape(backend)
        choices = [shape.whole(number, answer) for number, answer in enumerate(done.answers)]
        spent = usage(done.answers, memories=len(done.recalled) if user else None)
        return jsonify(**head("chatcmpl", "chat.completion", body.model), choices=choices, usage=spent)


def _user(backend: Backend, body: ChatCompletionRequest, asked: Terms) -> UserMemories | None:
    """The memories that a request is to use and to add to; None if `user` is but a client's note.

    Raises:
        InvalidInput: memory is asked for where there is none, for nobody, or for what is no name. Memories.of's errors.
    """
    wanted = backend.remembers_completions if body.memory is None else body.memory
    if not wanted or asked.behind:  # a line of a batch may be asked twice: it changes nothing
        return None
    if backend.memories is None:
        raise InvalidInput(said("memory_off_asked"), param="memory")
    if body.user:
        return backend.memories.of(whose(asked.caller, body.user))
    if body.memory:
        raise InvalidInput(said("memory_whose"), param="memory")
    return None


def _complete(
    backend: Backend, user: UserMemories | None, messages: Sequence[Utterance], wanted: Wanted, asked: Terms
) -> Reminded:
    if user is None:
        return Reminded(complete(backend.service, messages, wanted, asked))
    return complete_reminded(backend.service, user.remind, messages, wanted, asked)


def _note(user: UserMemories, done: Reminded) -> None:
    if done.said:
        user.note_said(done.said.text, done.said.mood)


class _Shape:
    """How a chat's choices look, whole and in chunks."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def whole(self, number: int, answer: Answer) -> dict[str, Any]:
        """A reply that has ended."""
        message = {"role": "assistant", "content": answer.text, "refusal": None}
        logprobs = self._logprobs(answer.result.logprobs)
        finish_reason = answer.result.finish_reason.value
        return {"index": number, "message": message, "logprobs": logprobs, "finish_reason": finish_reason}

    def begun(self, number: int) -> dict[str, Any]:
        return self._choice(number, {"role": "assistant", "content": "", "refusal": None})

    def piece(self, number: int, text: str, logprobs: Sequence[Logprobs]) -> dict[str, Any]:
        return self._choice(number, {"content": text}) | {"logprobs": self._logprobs(logprobs)}

    def ended(self, number: int) -> dict[str, Any]:
        return self._choice(number, {})

    @staticmethod
    def _choice(number: int, delta: dict[str, Any]) -> dict[str, Any]:
        return {"index": number, "delta": delta, "logprobs": None, "finish_reason": None}

    def _logprobs(self, told: Sequence[Logprobs]) -> dict[str, Any] | None:
        """None where none were asked for: every reply has a token at least."""
        if not told:
            return None
        content = chosen_tokens(told, self._backend.service.codec.tokenizer)
        return {"content": content, "refusal": None}
