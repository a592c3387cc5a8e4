"""What clients may say of the replies they want, chat or not: OpenAI's fields and vLLM's beside them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, Discriminator, Field, Tag, WithJsonSchema, model_validator

from qwen_allinone.engine import Logprobs, Sampling
from qwen_allinone.errors import InvalidInput
from qwen_allinone.http.body import Body
from qwen_allinone.http.error_answers import TAG, tag_of_type
from qwen_allinone.http.messages import complaint, without_nulls
from qwen_allinone.json_schema import ANY_OBJECT, MOST_CHARACTERS, SchemaError, grammar_of
from qwen_allinone.model.tokenizer import Tokenizer
from qwen_allinone.service import Answer, SamplingDefaults
from qwen_allinone.service.completions import Wanted
from qwen_allinone.wording import said

_MOST_STOPS, _LONGEST_STOP = 4, 128
_MOST_BIASES = 1024
_MOST_CHOICES = 8
MOST_LOGPROBS = 50_000  # each is an object in the answer
_LEAST_LOGPROB = -9999.0  # of a token that cannot come: JSON has no infinity
_SEED = 2**63


def _stops(value: Any) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise complaint(said("strings"))
    if len(texts) > _MOST_STOPS or not all(0 < len(text) <= _LONGEST_STOP for text in texts):
        raise complaint(said("stop_form", most_stops=_MOST_STOPS, longest_stop=_LONGEST_STOP))
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
        raise complaint(said("bias_form", most_biases=_MOST_BIASES))
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

    def grammar(self) -> str | None:
        """None: anything may be said."""
        return None


class JsonObjectFormat(Body):
    """Any JSON object."""

    type: Literal["json_object"]

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

    def grammar_at(self, place: str, param: str) -> str:
        """Of all that fits; raises InvalidInput where the schema at `place` of the body cannot be followed."""
        try:
            return grammar_of(self.schema_)
        except SchemaError as error:
            raise InvalidInput(said("schema_unusable", place=place, error=error), param=param) from None


class JsonSchemaFormat(Body):
    """A JSON text that fits a schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema

    def grammar(self) -> str | None:
        """Of all that fits; raises InvalidInput where the schema cannot be followed."""
        return self.json_schema.grammar_at("response_format.json_schema.schema", "response_format")


ResponseFormat = Annotated[
    Annotated[TextFormat, Tag(f"{TAG}text")]
    | Annotated[JsonObjectFormat, Tag(f"{TAG}json_object")]
    | Annotated[JsonSchemaFormat, Tag(f"{TAG}json_schema")],
    Discriminator(tag_of_type),
]


OF_MODEL = "缺省：按模型自己的 generation_config.json"  # of a field that the model has a default for

T = TypeVar("T")


def set_or(given: T | None, default: T) -> T:
    """What the request says, or else the default."""
    return default if given is None else given


class ClientNotes(Body):
    """A client's notes to a provider, with which nothing is done, and a choice where there is only one."""

    parallel_tool_calls: bool = Field(True, description="没有工具，无作用")
    service_tier: Literal["auto", "default"] = Field("auto", description="只有一种")
    metadata: dict[str, str] = Field({}, description="客户端自己的备注，不作处理")
    safety_identifier: str = Field("", description="同上")
    prompt_cache_key: str = Field("", description="同上")


class ReplyFields(Body):
    """How replies are drawn, how many, and in which form. Null is the same as not set."""

    model: str = Field(description="本服务的模型名，见 GET /v1/models")
    stream: bool = Field(False, description="true：以 SSE 分块发送，最后是 data: [DONE]")
    stream_options: StreamOptions | None = Field(None, description="只能与 stream: true 一起用")
    temperature: float | None = Field(None, ge=0.0, le=2.0, description=f"0：总取概率最大的；{OF_MODEL}")
    top_p: float | None = Field(None, ge=0.0, le=1.0, description=OF_MODEL)
    top_k: int | None = Field(None, ge=-1, description=f"只从概率最大的几个里取；0 或 -1：不限；{OF_MODEL}")
    min_p: float | None = Field(None, ge=0.0, le=1.0, description=f"不取概率低于最大者这个比例的；0：不限；{OF_MODEL}")
    repetition_penalty: float | None = Field(
        None, ge=0.01, le=5.0, description=f"大于 1：少重复提示和回复里有过的；{OF_MODEL}"
    )
    presence_penalty: float = Field(0.0, ge=-2.0, le=2.0, description="大于 0：少说回复里有过的")
    frequency_penalty: float = Field(0.0, ge=-2.0, le=2.0, description="同上，每出现一次减一次")
    logit_bias: Annotated[
        tuple[tuple[int, float], ...],
        BeforeValidator(_biases),
        WithJsonSchema({"type": "object", "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100}}),
    ] = Field(default_factory=tuple, description="token 编号到 -100 至 100 的数，加到它的 logit 上")
    stop: Annotated[tuple[str, ...], BeforeValidator(_stops), WithJsonSchema(_STOP_SCHEMA)] = Field(
        (), description="遇到即停，本身不输出；最多 4 个"
    )
    response_format: ResponseFormat | None = Field(None, description="json_object、json_schema：回复是这样的 JSON")
    n: int = Field(1, ge=1, le=_MOST_CHOICES, description="同样的输入要几个回复")
    seed: int | None = Field(None, ge=-_SEED, lt=_SEED, description="同样的请求和种子得到同样的回复")
    user: str = Field("", description="客户端自己的备注，不作处理")

    _unset = model_validator(mode="before")(without_nulls)

    def replies(self, max_tokens: int, logprobs: int | None, defaults: SamplingDefaults) -> Wanted:
        """As the service knows it, with the model's `defaults` for what is not set.

        Raises:
            InvalidInput: fields contradict each other.
        """
        if logprobs is not None and self.n * max_tokens * (1 + logprobs) > MOST_LOGPROBS:
            most = said("logprobs_count", most_logprobs=MOST_LOGPROBS)
            raise InvalidInput(said("logprobs_many", most=most), param="logprobs")
        grammar = self.response_format.grammar() if self.response_format else None
        if self.stop and grammar:
            raise InvalidInput(said("stop_cuts_json"), param="stop")
        if self.stream_options is not None and not self.stream:
            raise InvalidInput(said("stream_options_alone"), param="stream_options")
        sampling = Sampling(
            max_tokens,
            temperature=set_or(self.temperature, defaults.temperature),
            top_p=set_or(self.top_p, defaults.top_p),
            top_k=max(set_or(self.top_k, defaults.top_k), 0),  # -1 is how vLLM writes it
            min_p=set_or(self.min_p, defaults.min_p),
            repetition_penalty=set_or(self.repetition_penalty, defaults.repetition_penalty),
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            logit_bias=self.logit_bias,
            seed=self.seed,
            logprobs=logprobs,
        )
        return Wanted(sampling, self.stop, grammar, self.n)

    @property
    def wants_usage(self) -> bool:
        """Whether the last chunk of a stream tells of the tokens."""
        return self.stream_options is not None and self.stream_options.include_usage


class LikelyToken(BaseModel):
    """A token and its natural log-probability. `bytes` tell a part of a character, whose text is `bytes:\\xe4`."""

    token: str
    logprob: float
    bytes: list[int]


class ChosenToken(LikelyToken):
    """A token of the reply, and the likeliest at its place."""

    top_logprobs: list[LikelyToken]


class PromptDetails(BaseModel):
    """Tokens of the prompt that did not have to be computed."""

    cached_tokens: int


class CompletionUsage(BaseModel):
    """Tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    memories: int | None = Field(
        None, description="How many memories the prompt was told; absent where none are looked for"
    )


def head(prefix: str, kind: str, model_name: str) -> dict[str, Any]:
    """What every answer and every chunk begins with."""
    return {"id": f"{prefix}-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": model_name}


def usage(answers: Sequence[Answer], prompts: int = 1, memories: int | None = None) -> dict[str, Any]:
    """Each of the `prompts` counts once, however many of the answers, which come in its order, are its replies.

    `memories`: so many were told to the prompt; None where none were looked for.
    """
    results = [answer.result for answer in answers]
    firsts = results[:: len(results) // prompts]
    read, generated = sum(first.prompt_tokens for first in firsts), sum(len(result.ids) for result in results)
    return CompletionUsage(
        prompt_tokens=read,
        completion_tokens=generated,
        total_tokens=read + generated,
        prompt_tokens_details=PromptDetails(cached_tokens=sum(first.reused_tokens for first in firsts)),
        memories=memories,
    ).model_dump(exclude_none=True)


def chosen_tokens(told: Sequence[Logprobs], tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """Each token of a reply and the likeliest at its place, as `ChosenToken`s."""

    def entry(token: int, logprob: float) -> dict[str, Any]:
        raw = list(tokenizer.bytes_of(token))
        return {"token": tokenizer.text_of(token), "logprob": shown_logprob(logprob), "bytes": raw}

    return [entry(t.token, t.logprob) | {"top_logprobs": [entry(*likely) for likely in t.top]} for t in told]


def shown_logprob(logprob: float) -> float:
    """As JSON can have it."""
    return max(logprob, _LEAST_LOGPROB)
