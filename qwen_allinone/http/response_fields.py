"""What clients may say to POST /v1/responses."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, WithJsonSchema, model_validator

from qwen_allinone.engine import Sampling
from qwen_allinone.errors import InvalidInput
from qwen_allinone.http.body import Body
from qwen_allinone.http.error_answers import TAG, tag_of_type
from qwen_allinone.http.messages import MOST_MESSAGES, complaint, join_parts, without_nulls
from qwen_allinone.http.reply_fields import (
    MOST_LOGPROBS,
    OF_MODEL,
    ClientNotes,
    JsonObjectFormat,
    NamedSchema,
    TextFormat,
    set_or,
)
from qwen_allinone.http.tool_fields import FlatTools, ToolChoice
from qwen_allinone.service import SamplingDefaults
from qwen_allinone.service.completions import DEFAULT_MAX_TOKENS, Utterance, Wanted
from qwen_allinone.wording import said

_LOGPROBS = "message.output_text.logprobs"


def _items(value: Any) -> Any:
    """A list of messages, however it was written; what is no message is named."""
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    for number, item in enumerate(value if isinstance(value, list) else (), 1):
        kind = item.get("type") if isinstance(item, dict) else None
        if isinstance(kind, str) and kind != "message":
            raise complaint(said("item_no_message", number=number, kind=kind[:64]))
    return value


def _content(value: Any) -> Any:
    """The text of a message's parts. Those of an earlier reply come back with what was told of them."""
    if not isinstance(value, list):
        return value
    return join_parts([_bare(part) for part in value], "input_text", "output_text")


def _bare(part: Any) -> Any:
    """A part of an earlier reply without its log-probabilities, and without the annotations that it does not have."""
    if not isinstance(part, dict) or part.get("type") != "output_text" or part.get("annotations"):
        return part
    return {key: value for key, value in part.items() if key not in ("annotations", "logprobs")}


class InputMessage(Body):
    """One message, as clients write it or as an earlier answer held it."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_content)]
    type: Literal["message"] = "message"
    id: str = ""
    status: Literal["in_progress", "completed", "incomplete"] = "completed"
    phase: Literal["commentary", "final_answer"] = "final_answer"

    _unset = model_validator(mode="before")(without_nulls)

    @property
    def pair(self) -> Utterance:
        """As the model's template knows it: a developer's word is the system's."""
        return ("system" if self.role == "developer" else self.role, self.content)


_PART = {"type": "object", "properties": {"type": {"enum": ["input_text", "output_text"]}}, "required": ["type"]}
_ITEM = {
    "type": "object",
    "properties": {
        "role": {"enum": ["system", "developer", "user", "assistant"]},
        "content": {"anyOf": [{"type": "string"}, {"type": "array", "items": _PART}]},
        "type": {"const": "message"},
    },
    "required": ["role", "content"],
}
_ITEMS = {"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "maxItems": MOST_MESSAGES, "items": _ITEM}]}
Input = Annotated[
    list[InputMessage],
    Field(min_length=1, max_length=MOST_MESSAGES, fail_fast=True),
    BeforeValidator(_items),
    WithJsonSchema(_ITEMS),
]


class FlatSchemaFormat(NamedSchema):
    """A JSON text that fits a schema, which this route's clients write without a level between."""

    type: Literal["json_schema"]

    def grammar(self) -> str | None:
        """Of all that fits; raises InvalidInput where the schema cannot be followed."""
        return self.grammar_at("text.format.schema", "text.format.schema")


Format = Annotated[
    Annotated[TextFormat, Tag(f"{TAG}text")]
    | Annotated[JsonObjectFormat, Tag(f"{TAG}json_object")]
    | Annotated[FlatSchemaFormat, Tag(f"{TAG}json_schema")],
    Discriminator(tag_of_type),
]


class TextOptions(Body):
    """The form of the reply."""

    format: Format = Field(
        default_factory=lambda: TextFormat(type="text"), description="json_object、json_schema：回复是这样的 JSON"
    )
    verbosity: Literal["medium"] = Field("medium", description="只有一种")

    _unset = model_validator(mode="before")(without_nulls)


class Reasoning(Body):
    """Only to say that there is none."""

    effort: Literal["none", "minimal"] = Field("none", description="模型不思考")

    _unset = model_validator(mode="before")(without_nulls)


class ObfuscationOption(Body):
    """Only to say that there is none."""

    include_obfuscation: Literal[False] = Field(False, description="只能是 false")

    _unset = model_validator(mode="before")(without_nulls)


class ResponseRequest(ClientNotes):
    """What is to be answered. A field that is not listed is refused; null is the same as not set."""

    model: str = Field(description="本服务的模型名，见 GET /v1/models")
    input: Input = Field(description="要回应的文字，或若干 message", examples=["今天心情特别差"])
    instructions: str = Field("", description="对模型的要求，放在最前面；只用于这一次，不随 previous_response_id 延续")
    previous_response_id: str | None = Field(None, description="接着这个回复往下说；它必须已保存，属于同一个密钥")
    store: bool = Field(True, description="保存这个回复，以便接着说、读取和删除；与会话一样过期")
    stream: bool = Field(False, description="true：以 SSE 事件发送")
    stream_options: ObfuscationOption | None = Field(None, description="只能与 stream: true 一起用")
    temperature: float | None = Field(None, ge=0.0, le=2.0, description=f"0：总取概率最大的；{OF_MODEL}")
    top_p: float | None = Field(None, ge=0.0, le=1.0, description=OF_MODEL)
    max_output_tokens: int = Field(DEFAULT_MAX_TOKENS, ge=1, description="回复最多的 token 数；不超过上下文所余")
    text: TextOptions = Field(default_factory=lambda: TextOptions.model_validate({}), description="回复的格式")
    include: list[Literal["message.output_text.logprobs"]] = Field(
        [], max_length=20, fail_fast=True, description="附带每个 token 的对数概率"
    )
    top_logprobs: int = Field(0, ge=0, le=20, description=f"每处再列出概率最大的几个；include 里要有 {_LOGPROBS}")
    tools: FlatTools = Field([], description="可以给出，但从不调用，模型也不知道有它们：回复总是文字")
    tool_choice: ToolChoice = Field("auto", description="只能是 none 或 auto：从不调用工具")
    reasoning: Reasoning = Field(default_factory=lambda: Reasoning.model_validate({}), description="模型不思考")
    truncation: Literal["disabled"] = Field("disabled", description="太长就是 400，不会悄悄去掉开头")
    background: Literal[False] = Field(False, description="只能是 false")
    user: str = Field("", description="客户端自己的备注，不作处理")

    _unset = model_validator(mode="before")(without_nulls)

    def wanted(self, defaults: SamplingDefaults) -> Wanted:
        """As the service knows it, with the model's `defaults` for what is not set.

        Raises:
            InvalidInput: fields contradict each other.
        """
        if self.top_logprobs and not self.include:
            raise InvalidInput(said("top_logprobs_include", logprobs=_LOGPROBS), param="top_logprobs")
        if self.stream_options is not None and not self.stream:
            raise InvalidInput(said("stream_options_alone"), param="stream_options")
        logprobs = self.top_logprobs if self.include else None
        if logprobs is not None and self.max_output_tokens * (1 + logprobs) > MOST_LOGPROBS:
            most = said("response_logprobs_count", most_logprobs=MOST_LOGPROBS)
            raise InvalidInput(said("logprobs_many", most=most), param="top_logprobs")
        sampling = Sampling(
            self.max_output_tokens,
            temperature=set_or(self.temperature, defaults.temperature),
            top_p=set_or(self.top_p, defaults.top_p),
            top_k=defaults.top_k,
            min_p=defaults.min_p,
            repetition_penalty=defaults.repetition_penalty,
            logprobs=logprobs,
        )
        return Wanted(sampling, grammar=self.text.format.grammar(), form_field="text.format.schema")

    @property
    def messages(self) -> list[Utterance]:
        """What is said now."""
        return [item.pair for item in self.input]
