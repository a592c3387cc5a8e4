"""POST /v1/completions, as OpenAI's clients know it: the bare model goes on from a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from flask import Response, jsonify
from flask_openapi import OpenAPI
from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema

from qwen_allinone.engine import Logprobs
from qwen_allinone.errors import InvalidInput
from qwen_allinone.http import sse
from qwen_allinone.http.backend import Backend
from qwen_allinone.http.error_answers import NestedErrorBody, error_responses
from qwen_allinone.http.messages import complaint
from qwen_allinone.http.reply_fields import CompletionUsage, ReplyFields, head, shown_logprob, usage
from qwen_allinone.http.request_terms import needs_engine, parameters, terms
from qwen_allinone.service import Answer
from qwen_allinone.service.completions import Wanted, continue_texts

_MOST_PROMPTS, _MOST_REPLIES = 16, 16
_DEFAULT_MAX_TOKENS = 16  # OpenAI's
Prompt = str | list[int]
_TEXT, _IDS = {"type": "string"}, {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
_MANY = {"type": "array", "minItems": 1, "maxItems": _MOST_PROMPTS}
_PROMPT_SCHEMA = {"anyOf": [_TEXT, _IDS, _MANY | {"items": _TEXT}, _MANY | {"items": _IDS}]}


def _prompts(value: Any) -> Any:
    """A list of texts or of lists of token ids, however it was written."""
    prompts = value if isinstance(value, list) and not all(map(_is_id, value)) else [value]
    for prompt in prompts:
        if not isinstance(prompt, str) and not (isinstance(prompt, list) and all(map(_is_id, prompt))):
            raise complaint("必须是字符串、token 编号的数组，或若干个其中一种")
    if len({type(prompt) for prompt in prompts}) != 1 or len(prompts) > _MOST_PROMPTS:
        raise complaint(f"最多 {_MOST_PROMPTS} 个，文字和 token 编号不能混用")
    return prompts


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31


class CompletionRequest(ReplyFields):
    """Texts to go on from. A field that is not listed is refused."""

    prompt: Annotated[list[Prompt], BeforeValidator(_prompts), WithJsonSchema(_PROMPT_SCHEMA)] = Field(
        description="要续写的文字或 token 编号，最多 16 个"
    )
    suffix: Literal[""] = Field("", description="只能是空的：模型只会往后写")
    echo: bool = Field(False, description="true：回复前面带上 prompt；不能与 logprobs 一起用")
    best_of: Literal[1] = Field(1, description="只能是 1")
    logprobs: int | None = Field(None, ge=0, le=5, description="附带每个 token 和概率最大的几个的对数概率")
    max_tokens: int = Field(_DEFAULT_MAX_TOKENS, ge=1, description="续写最多的 token 数；不超过上下文所余")

    def wanted(self) -> Wanted:
        """As the service knows it; raises InvalidInput where fields contradict each other."""
        if self.echo and self.logprobs is not None:
            raise InvalidInput("echo 不能与 logprobs 一起用：没有 prompt 的对数概率", param="echo")
        if self.n * len(self.prompt) > _MOST_REPLIES:
            raise InvalidInput(f"n 乘以 prompt 的个数最多 {_MOST_REPLIES}", param="n")
        return self.replies(self.max_tokens, self.logprobs)


class TextLogprobs(BaseModel):
    """Of each token of a reply: where in the text it begins, and the likeliest at its place."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class TextChoice(BaseModel):
    """One reply; those to the second prompt come after those to the first."""

    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: Literal["stop", "length"]


class TextCompletion(BaseModel):
    """All replies."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: CompletionUsage


_CHUNKS = "text_completion 各块，最后是 data: [DONE]；中途失败则是带 error 的一块，没有 [DONE] 就是不完整的"


def register(app: OpenAPI, backend: Backend) -> None:
    """Add the route to `app`."""

    @app.post(
        "/v1/completions",
        summary="续写文字（与 OpenAI 的接口相同）",
        responses={200: TextCompletion, **error_responses(NestedErrorBody, 400, 404, 413, 415, 500, 503, 504)},
        openapi_extensions=parameters() | sse.documented(_CHUNKS),
    )
    @needs_engine
    def completions(body: CompletionRequest) -> Response:
        backend.check_model(body.model)
        wanted, asked = body.wanted(), terms(backend)
        if body.stream:

            def work(out: sse.Writer) -> None:
                chunks = _Chunks(out, body, backend)
                heard = replace(asked, watch=out.watch, listener=chunks)
                chunks.end(continue_texts(backend.service, body.prompt, wanted, heard))

            return sse.respond(work, backend)
        answers = continue_texts(backend.service, body.prompt, wanted, asked)
        shown = _Shown(body, backend)
        choices = [shown.whole(number, answer) for number, answer in enumerate(answers)]
        tokens = usage(answers, len(body.prompt))
        return jsonify(**head("cmpl", "text_completion", body.model), choices=choices, usage=tokens)


class _Shown:
    """How replies are told to one client."""

    def __init__(self, body: CompletionRequest, backend: Backend) -> None:
        self._body, self._backend = body, backend
        self._told = [0] * (body.n * len(body.prompt))  # characters of each reply so far

    def whole(self, number: int, answer: Answer) -> dict[str, Any]:
        """A reply that has ended."""
        text = self.echoed(number) + answer.text
        return self.piece(number, text, answer.result.logprobs) | {"finish_reason": answer.result.finish_reason.value}

    def piece(self, number: int, text: str, logprobs: Sequence[Logprobs] = ()) -> dict[str, Any]:
        """A part of a reply."""
        told = self._logprobs(number, logprobs) if self._body.logprobs is not None else None
        return {"index": number, "text": text, "logprobs": told, "finish_reason": None}

    def echoed(self, number: int) -> str:
        """What stands before a reply."""
        prompt = self._body.prompt[number // self._body.n]
        if not self._body.echo:
            return ""
        return prompt if isinstance(prompt, str) else self._backend.service.codec.tokenizer.decode(prompt)

    def _logprobs(self, number: int, logprobs: Sequence[Logprobs]) -> dict[str, Any]:
        tokens = [self._text_of(one.token) for one in logprobs]
        offsets = []
        for token in tokens:
            offsets.append(self._told[number])
            self._told[number] += len(token)
        return {
            "tokens": tokens,
            "token_logprobs": [shown_logprob(one.logprob) for one in logprobs],
            "top_logprobs": [{self._text_of(t): shown_logprob(value) for t, value in one.top} for one in logprobs],
            "text_offset": offsets,
        }

    def _text_of(self, token: int) -> str:
        return self._backend.service.codec.tokenizer.bytes_of(token).decode("utf-8", "replace")


class _Chunks:
    """Tells of replies as a stream of chunks; the last of each says why it ended."""

    def __init__(self, out: sse.Writer, body: CompletionRequest, backend: Backend) -> None:
        self._out, self._body, self._shown = out, body, _Shown(body, backend)
        self._head = head("cmpl", "text_completion", body.model)

    def submitted(self) -> None:
        for number in range(self._body.n * len(self._body.prompt)):
            self._send(self._shown.piece(number, self._shown.echoed(number)))  # and the headers leave

    def labelled(self, sentiment: Answer, care: Answer | None) -> None:
        raise AssertionError("a completion has no sentiment")

    def delta(self, text: str, choice: int = 0, logprobs: Sequence[Logprobs] = ()) -> None:
        self._send(self._shown.piece(choice, text, logprobs))

    def end(self, answers: Sequence[Answer]) -> None:
        """Send what comes after the replies."""
        for number, answer in enumerate(answers):
            self._send(self._shown.piece(number, "") | {"finish_reason": answer.result.finish_reason.value})
        if self._body.wants_usage:
            self._out.send(self._head | {"choices": [], "usage": usage(answers, len(self._body.prompt))})
        self._out.end("[DONE]")

    def _send(self, choice: dict[str, Any]) -> None:
        no_usage_yet = {"usage": None} if self._body.wants_usage else {}
        self._out.send(self._head | {"choices": [choice]} | no_usage_yet)
