"""POST /v1/chat/completions and GET /v1/models, as OpenAI's clients know them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from flask import Response, jsonify
from flask_openapi import OpenAPI
from pydantic import BaseModel, BeforeValidator, Discriminator, Field, Tag, WithJsonSchema, model_validator

from qwen_allinone.engine import Logprobs, Sampling
from qwen_allinone.errors import InvalidInput
from qwen_allinone.http import sse
from qwen_allinone.http.backend import Backend
from qwen_allinone.http.body import Body
from qwen_allinone.http.error_answers import TAG, NestedErrorBody, error_responses, tag_of_type
from qwen_allinone.http.messages import Messages, complaint, without_nulls
from qwen_allinone.http.request_terms import needs_engine, parameters, terms
from qwen_allinone.json_schema import ANY_OBJECT, MOST_CHARACTERS, SchemaError, grammar_of
from qwen_allinone.service import Answer
from qwen_allinone.service.completions import DEFAULT_MAX_TOKENS, Wanted, complete

_MOST_STOPS, _LONGEST_STOP = 4, 128
_MOST_BIASES = 1024
_MOST_CHOICES = 8
_LEAST_LOGPROB = -9999.0  # of a token that cannot come: JSON has no infinity
_SEED = 2**63


def _stops(value: Any) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise complaint("必须是字符串或字符串数组")
    if len(texts) > _MOST_STOPS or not all(0 < len(text) <= _LONGEST_STOP for text in texts):
        raise complaint(f"最多 {_MOST_STOPS} 个，每个 1 到 {_LONGEST_STOP} 个字符")
    return tuple(texts)


_STOP_SCHEMA = {
    "anyOf": [
        {"type": "string", "minLength": 1, "maxLength": _LONGEST_STOP},
        {"type": "array", "items": {"type": "string"}, "maxItems": _MOST_STOPS},
    ]
}


def _biases(value: Any) -> tuple[tuple[int, float], ...]:
    given = value.items() if isinstance(value, dict) else None
    if given is None or len(value) > _MOST_BIASES or not all(_is_bias(token, bias) for token, bias in given):
        raise complaint(f"必须是对象：token 编号到 -100 至 100 的数，最多 {_MOST_BIASES} 项")
    return tuple((int(token), float(bias)) for token, bias in given)


def _is_bias(token: str, bias: Any) -> bool:
    return token.isascii() and token.isdigit() and len(token) < 10 and type(bias) in (int, float) and abs(bias) <= 100


class StreamOptions(Body):
    """What a stream carries besides the reply."""

    include_usage: bool = Field(False, description="true：在 [DONE] 之前多发一块，带 usage")
    include_obfuscation: Literal[False] = Field(False, description="只能是 false")

    _unset = model_validator(mode="before")(without_nulls)


class TextFormat(Body):
    """Free text."""

    type: Literal["text"]

    @property
    def grammar(self) -> str | None:
        """None: anything may be said."""
        return None


class JsonObjectFormat(Body):
    """Any JSON object."""

    type: Literal["json_object"]

    @property
    def grammar(self) -> str | None:
        """Of all objects."""
        return grammar_of(ANY_OBJECT)


class NamedSchema(Body):
    """A JSON schema as clients name it."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="只是名字，不影响回复")
    description: str = Field("", description="同上")
    schema_: dict[str, Any] = Field(alias="schema", description=f"JSON schema，最多 {MOST_CHARACTERS} 个字符")
    strict: bool = Field(True, description="总是严格遵守")

    _unset = model_validator(mode="before")(without_nulls)


class JsonSchemaFormat(Body):
    """A JSON text that fits a schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema

    @property
    def grammar(self) -> str | None:
        """Of all that fits; raises InvalidInput where the schema cannot be followed."""
        try:
            return grammar_of(self.json_schema.schema_)
        except SchemaError as error:
            raise InvalidInput(f"response_format.json_schema.schema 不能用：{error}", param="response_format") from None


ResponseFormat = Annotated[
    Annotated[TextFormat, Tag(f"{TAG}text")]
    | Annotated[JsonObjectFormat, Tag(f"{TAG}json_object")]
    | Annotated[JsonSchemaFormat, Tag(f"{TAG}json_schema")],
    Discriminator(tag_of_type),
]
Nothing = Annotated[list[Any], Field(max_length=0)]


class NeutralFields(Body):
    """What clients send with the value that asks for nothing: taken with that value, refused with any other.

    The last four are a client's notes to a provider; nothing is done with them.
    """

    tools: Nothing = Field([], description="只能是空的")
    functions: Nothing = Field([], description="只能是空的")
    tool_choice: Literal["none", "auto"] = Field("none", description="没有工具可选")
    function_call: Literal["none", "auto"] = Field("none", description="没有函数可选")
    parallel_tool_calls: bool = Field(True, description="没有工具，无作用")
    modalities: list[Literal["text"]] = Field(["text"], description="只有文字")
    store: Literal[False] = Field(False, description="只能是 false：回复不会被保存")
    service_tier: Literal["auto", "default"] = Field("auto", description="只有一种")
    reasoning_effort: Literal["none", "minimal"] = Field("none", description="模型不思考")
    metadata: dict[str, str] = Field({}, description="客户端自己的备注，不作处理")
    user: str = Field("", description="同上")
    safety_identifier: str = Field("", description="同上")
    prompt_cache_key: str = Field("", description="同上")


class ChatCompletionRequest(NeutralFields):
    """A conversation to be continued. Null is the same as not set; a field that is not listed is refused."""

    model: str = Field(description="本服务的模型名，见 GET /v1/models")
    messages: Messages
    stream: bool = Field(False, description="true：以 SSE 分块发送，最后是 data: [DONE]")
    stream_options: StreamOptions | None = Field(None, description="只能与 stream: true 一起用")
    temperature: float = Field(1.0, ge=0.0, le=2.0, description="0：总取概率最大的")
    top_p: float = Field(1.0, ge=0.0, le=1.0)
    top_k: int = Field(0, ge=0, description="只从概率最大的几个里取；0：不限")
    min_p: float = Field(0.0, ge=0.0, le=1.0, description="不取概率低于最大者这个比例的；0：不限")
    repetition_penalty: float = Field(1.0, gt=0.0, le=5.0, description="大于 1：少重复提示和回复里有过的")
    presence_penalty: float = Field(0.0, ge=-2.0, le=2.0, description="大于 0：少说回复里有过的")
    frequency_penalty: float = Field(0.0, ge=-2.0, le=2.0, description="同上，每出现一次减一次")
    logit_bias: Annotated[
        tuple[tuple[int, float], ...],
        BeforeValidator(_biases),
        WithJsonSchema({"type": "object", "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100}}),
    ] = Field(default_factory=tuple, description="token 编号到 -100 至 100 的数，加到它的 logit 上")
    max_tokens: int | None = Field(None, ge=1, description="回复最多的 token 数；缺省 512；不超过上下文所余")
    max_completion_tokens: int | None = Field(None, ge=1, description="与 max_tokens 相同，二者只能给一个")
    stop: Annotated[tuple[str, ...], BeforeValidator(_stops), WithJsonSchema(_STOP_SCHEMA)] = Field(
        (), description="遇到即停，本身不输出；最多 4 个"
    )
    response_format: ResponseFormat | None = Field(None, description="json_object、json_schema：回复是这样的 JSON")
    n: int = Field(1, ge=1, le=_MOST_CHOICES, description="同一段对话要几个回复")
    logprobs: bool = Field(False, description="true：附带每个 token 的对数概率，取自温度、惩罚和格式之前")
    top_logprobs: int = Field(0, ge=0, le=20, description="每处再列出概率最大的几个；要有 logprobs: true")
    seed: int | None = Field(None, ge=-_SEED, lt=_SEED, description="同样的请求和种子得到同样的回复")

    _unset = model_validator(mode="before")(without_nulls)

    def wanted(self) -> Wanted:
        """As the service knows it; raises InvalidInput where fields contradict each other."""
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise InvalidInput("max_tokens 和 max_completion_tokens 只能给一个", param="max_completion_tokens")
        if self.top_logprobs and not self.logprobs:
            raise InvalidInput("top_logprobs 要与 logprobs: true 一起用", param="top_logprobs")
        grammar = self.response_format.grammar if self.response_format else None
        if self.stop and grammar:
            raise InvalidInput("stop 会把 JSON 截断，不能与 response_format 一起用", param="stop")
        if self.stream_options is not None and not self.stream:
            raise InvalidInput("stream_options 只能与 stream: true 一起用", param="stream_options")
        sampling = Sampling(
            self.max_tokens or self.max_completion_tokens or DEFAULT_MAX_TOKENS,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            logit_bias=self.logit_bias,
            seed=self.seed,
            logprobs=self.top_logprobs if self.logprobs else None,
        )
        return Wanted(sampling, self.stop, grammar, self.n)


class ChatCompletionMessage(BaseModel):
    """The reply."""

    role: Literal["assistant"]
    content: str
    refusal: None


class LikelyToken(BaseModel):
    """A token and its natural log-probability; `bytes` where it is part of a character."""

    token: str
    logprob: float
    bytes: list[int]


class ChosenToken(LikelyToken):
    """A token of the reply, and the likeliest at its place."""

    top_logprobs: list[LikelyToken]


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


class PromptDetails(BaseModel):
    """Tokens of the prompt that did not have to be computed."""

    cached_tokens: int


class CompletionUsage(BaseModel):
    """Tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class ChatCompletion(BaseModel):
    """A whole reply."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatCompletionChoice]
    usage: CompletionUsage


class Model(BaseModel):
    """The model of this server, by one of its names."""

    id: str
    object: Literal["model"]
    created: int = Field(description="When this process was started, in Unix seconds")
    owned_by: str


class ModelList(BaseModel):
    """One model, by each of its names."""

    object: Literal["list"]
    data: list[Model]


class ModelPath(BaseModel):
    """A model's name, slashes included."""

    model: str


_CHUNKS = "chat.completion.chunk 各块，最后是 data: [DONE]；中途失败则是带 error 的一块，没有 [DONE] 就是不完整的"


def register(app: OpenAPI, backend: Backend) -> None:
    """Add the routes to `app`."""
    _register_models(app, backend)

    @app.post(
        "/v1/chat/completions",
        summary="续写对话（与 OpenAI 的接口相同）",
        responses={200: ChatCompletion, **error_responses(NestedErrorBody, 400, 404, 413, 415, 500, 503, 504)},
        openapi_extensions=parameters() | sse.documented(_CHUNKS),
    )
    @needs_engine
    def chat_completions(body: ChatCompletionRequest) -> Response:
        backend.check_model(body.model)
        wanted, asked = body.wanted(), terms(backend)
        messages = [message.pair for message in body.messages]
        if body.stream:
            usage_too = body.stream_options is not None and body.stream_options.include_usage

            def work(out: sse.Writer) -> None:
                chunks = _Chunks(out, body, usage_too, backend)
                heard = replace(asked, watch=out.watch, listener=chunks)
                chunks.end(complete(backend.service, messages, wanted, heard))

            return sse.respond(work, backend)
        answers = complete(backend.service, messages, wanted, asked)
        choices = [_choice(number, answer, body, backend) for number, answer in enumerate(answers)]
        return jsonify(**_head("chat.completion", body.model), choices=choices, usage=_usage(answers))


def _choice(number: int, answer: Answer, body: ChatCompletionRequest, backend: Backend) -> dict[str, Any]:
    message = {"role": "assistant", "content": answer.text, "refusal": None}
    logprobs = _logprobs(answer.result.logprobs, backend) if body.logprobs else None
    return {"index": number, "message": message, "logprobs": logprobs, "finish_reason": _finish_reason(answer)}


def _logprobs(told: Sequence[Logprobs], backend: Backend) -> dict[str, Any]:
    """In OpenAI's shape."""
    tokenizer = backend.service.codec.tokenizer

    def entry(token: int, logprob: float) -> dict[str, Any]:
        raw = tokenizer.bytes_of(token)
        shown = raw.decode("utf-8", "replace")
        return {"token": shown, "logprob": max(logprob, _LEAST_LOGPROB), "bytes": list(raw)}

    content = [entry(t.token, t.logprob) | {"top_logprobs": [entry(*likely) for likely in t.top]} for t in told]
    return {"content": content, "refusal": None}


def _register_models(app: OpenAPI, backend: Backend) -> None:
    created = int(time.time())
    models = {
        name: Model(id=name, object="model", created=created, owned_by="qwen-allinone") for name in backend.model_names
    }

    @app.get("/v1/models", summary="列出模型（只有一个，可以有几个名字）", responses={200: ModelList})
    def list_models() -> Response:
        return jsonify(ModelList(object="list", data=list(models.values())).model_dump())

    @app.get(
        "/v1/models/<path:model>",
        summary="一个模型",
        responses={200: Model, **error_responses(NestedErrorBody, 404)},
    )
    def retrieve_model(path: ModelPath) -> Response:
        backend.check_model(path.model)
        return jsonify(models[path.model].model_dump())


class _Chunks:
    """Tells of replies as a stream of chunks; the last of each says why it ended."""

    def __init__(self, out: sse.Writer, body: ChatCompletionRequest, usage_too: bool, backend: Backend) -> None:
        self._out, self._body, self._backend = out, body, backend
        self._head = _head("chat.completion.chunk", body.model)
        self._usage_too = usage_too

    def submitted(self) -> None:
        for number in range(self._body.n):
            self._send(number, {"role": "assistant", "content": "", "refusal": None})  # and the headers leave

    def labelled(self, sentiment: Answer, care: Answer | None) -> None:
        raise AssertionError("a completion has no sentiment")

    def delta(self, text: str, choice: int = 0, logprobs: Sequence[Logprobs] = ()) -> None:
        self._send(choice, {"content": text}, _logprobs(logprobs, self._backend) if logprobs else None)

    def end(self, answers: Sequence[Answer]) -> None:
        """Send what comes after the replies."""
        for number, answer in enumerate(answers):
            self._send(number, {}, finish_reason=_finish_reason(answer))
        if self._usage_too:
            self._out.send(self._head | {"choices": [], "usage": _usage(answers)})
        self._out.end("[DONE]")

    def _send(self, number: int, delta: dict[str, Any], logprobs: Any = None, finish_reason: str | None = None) -> None:
        choice = {"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        usage = {"usage": None} if self._usage_too else {}
        self._out.send(self._head | {"choices": [choice]} | usage)


def _head(kind: str, model_name: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": model_name}


def _finish_reason(answer: Answer) -> str:
    return answer.result.finish_reason.value


def _usage(answers: Sequence[Answer]) -> dict[str, Any]:
    """The prompt counts once, however many replies it got."""
    prompt, generated = answers[0].result, sum(len(answer.result.ids) for answer in answers)
    return CompletionUsage(
        prompt_tokens=prompt.prompt_tokens,
        completion_tokens=generated,
        total_tokens=prompt.prompt_tokens + generated,
        prompt_tokens_details=PromptDetails(cached_tokens=prompt.reused_tokens),
    ).model_dump()
