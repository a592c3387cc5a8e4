"""POST /v1/completions, as OpenAI's clients know it: the bare model goes on from a text."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from flask import Response, jsonify
from flask_openapi import OpenAPI
from pydantic import BaseModel, Field

from qwen_allinone.engine import Logprobs
from qwen_allinone.errors import InvalidInput
from qwen_allinone.http import sse
from qwen_allinone.http.backend import Backend
from qwen_allinone.http.error_answers import NestedErrorBody, error_responses
from qwen_allinone.http.prompts import Prompt, prompts
from qwen_allinone.http.reply_chunks import Chunks
from qwen_allinone.http.reply_fields import CompletionUsage, ReplyFields, head, shown_logprob, usage
from qwen_allinone.http.request_terms import needs_engine, parameters, terms
from qwen_allinone.service import Answer, SamplingDefaults
from qwen_allinone.service.completions import Wanted, continue_texts
from qwen_allinone.wording import said

_MOST_PROMPTS, _MOST_REPLIES = 16, 16
_DEFAULT_MAX_TOKENS = 16  # OpenAI's


class CompletionRequest(ReplyFields):
    """Texts to go on from. A field that is not listed is refused."""

    prompt: Annotated[list[Prompt], *prompts(_MOST_PROMPTS)] = Field(
        description=f"要续写的文字或 token 编号，最多 {_MOST_PROMPTS} 个"
    )
    suffix: Literal[""] = Field("", description="只能是空的：模型只会往后写")
    echo: bool = Field(False, description="true：回复前面带上 prompt；不能与 logprobs 一起用")
    best_of: Literal[1] = Field(1, description="只能是 1")
    logprobs: int | None = Field(None, ge=0, le=5, description="附带每个 token 和概率最大的几个的对数概率")
    max_tokens: int = Field(_DEFAULT_MAX_TOKENS, ge=1, description="续写最多的 token 数；不超过上下文所余")

    def wanted(self, defaults: SamplingDefaults) -> Wanted:
        """As the service knows it; raises InvalidInput where fields contradict each other."""
        if self.echo and self.logprobs is not None:
            raise InvalidInput(said("echo_logprobs"), param="echo")
        if self.n * len(self.prompt) > _MOST_REPLIES:
            raise InvalidInput(said("n_prompts", most_replies=_MOST_REPLIES), param="n")
        return self.replies(self.max_tokens, self.logprobs, defaults)


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
        wanted, asked = body.wanted(backend.service.codec.sampling_defaults), terms(backend)
        if body.stream:

            def work(out: sse.Writer) -> None:
                heading = head("cmpl", "text_completion", body.model)
                chunks = Chunks(out, body, heading, _Shape(body, backend), len(body.prompt))
                heard = replace(asked, watch=out.watch, listener=chunks)
                chunks.end(continue_texts(backend.service, body.prompt, wanted, heard))

            return sse.respond(work, backend)
        answers = continue_texts(backend.service, body.prompt, wanted, asked)
        shape = _Shape(body, backend)
        choices = [shape.whole(number, answer) for number, answer in enumerate(answers)]
        tokens = usage(answers, len(body.prompt))
        return jsonify(**head("cmpl", "text_completion", body.model), choices=choices, usage=tokens)


class _Shape:
    """How choices look to one client, whole and in chunks."""

    def __init__(self, body: CompletionRequest, backend: Backend) -> None:
        self._body, self._backend = body, backend
        # Of each reply the characters so far, as far as they are whole.
        self._told = [0] * (body.n * len(body.prompt))
        self._decoders = [codecs.getincrementaldecoder("utf-8")("ignore") for _ in self._told]

    def whole(self, number: int, answer: Answer) -> dict[str, Any]:
        """A reply that has ended."""
        text = self._echoed(number) + answer.text
        return self.piece(number, text, answer.result.logprobs) | {"finish_reason": answer.result.finish_reason.value}

    def begun(self, number: int) -> dict[str, Any]:
        return self.piece(number, self._echoed(number), ())

    def piece(self, number: int, text: str, logprobs: Sequence[Logprobs]) -> dict[str, Any]:
        told = self._logprobs(number, logprobs) if logprobs else None
        return {"index": number, "text": text, "logprobs": told, "finish_reason": None}

    def ended(self, number: int) -> dict[str, Any]:
        return self.piece(number, "", ())

    def _echoed(self, number: int) -> str:
        """What stands before a reply."""
        prompt = self._body.prompt[number // self._body.n]
        if not self._body.echo:
            return ""
        return prompt if isinstance(prompt, str) else self._backend.service.codec.tokenizer.decode(prompt)

    def _logprobs(self, number: int, logprobs: Sequence[Logprobs]) -> dict[str, Any]:
        tokenizer, offsets = self._backend.service.codec.tokenizer, list[int]()
        for one in logprobs:
            offsets.append(self._told[number])
            self._told[number] += len(self._decoders[number].decode(tokenizer.bytes_of(one.token)))
        likely = [{tokenizer.text_of(token): shown_logprob(value) for token, value in one.top} for one in logprobs]
        return {
            "tokens": [tokenizer.text_of(one.token) for one in logprobs],
            "token_logprobs": [shown_logprob(one.logprob) for one in logprobs],
            "top_logprobs": likely,
            "text_offset": offsets,
        }
