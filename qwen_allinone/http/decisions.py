"""POST /v1/decisions: typed questions about one text, in the shape of OpenAI's route of that name."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Annotated, Any, Literal

from flask import Response, jsonify
from flask_openapi import OpenAPI
from pydantic import BaseModel, BeforeValidator, Discriminator, Field, Tag, WithJsonSchema, model_validator

from qwen_allinone.http.backend import Backend
from qwen_allinone.http.body import Body
from qwen_allinone.http.error_answers import TAG, NestedErrorBody, error_responses, tag_of_type
from qwen_allinone.http.messages import JSON_PART, MOST_MESSAGES, complaint, join_parts, without_nulls
from qwen_allinone.http.request_terms import needs_engine, parameters, terms
from qwen_allinone.service import Answer, questions
from qwen_allinone.service.completions import Utterance
from qwen_allinone.service.questions import Decided, Option, TypedQuestion
from qwen_allinone.wording import said

MOST_QUESTIONS, MOST_CHOICES, MOST_LEVELS = 400, 255, 10
_TOOLS = {"function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output"}
_PARTS = ("input_text", "output_text", JSON_PART)


def _parts_schema(*kinds: str) -> dict[str, Any]:
    part = {"type": "object", "properties": {"type": {"enum": list(kinds)}}, "required": ["type"]}
    return {"anyOf": [{"type": "string"}, {"type": "array", "items": part}]}


def _value(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or not value.strip():
        raise complaint(said("bool_or_text"))
    try:
        value.encode()
    except UnicodeEncodeError:
        raise complaint(said("half_pair_in_it")) from None
    return value


def _no_tools(value: Any) -> Any:
    for number, item in enumerate(value if isinstance(value, list) else (), 1):
        kind = item.get("type") if isinstance(item, dict) else None
        if isinstance(kind, str) and kind in _TOOLS:
            raise complaint(said("tool_call_item", number=number, kind=kind))
    return value


class DecisionMessage(Body):
    """One message of what is to be judged."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        str, BeforeValidator(lambda content: join_parts(content, *_PARTS)), WithJsonSchema(_parts_schema(*_PARTS))
    ]
    type: Literal["message"] = "message"

    _unset = model_validator(mode="before")(without_nulls)

    @property
    def pair(self) -> Utterance:
        """As the model's template knows it."""
        return ("system" if self.role == "developer" else self.role, self.content)


_MESSAGES_SCHEMA = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "array",
            "minItems": 1,
            "maxItems": MOST_MESSAGES,
            "items": {
                "type": "object",
                "properties": {
                    "role": {"enum": ["system", "developer", "user", "assistant"]},
                    "content": _parts_schema(*_PARTS),
                    "type": {"const": "message"},
                },
                "required": ["role", "content"],
                "additionalProperties": False,
            },
        },
    ]
}
_Messages = Annotated[
    list[DecisionMessage], Field(min_length=1, max_length=MOST_MESSAGES, fail_fast=True), BeforeValidator(_no_tools)
]
Input = Annotated[
    Annotated[str, Tag(f"{TAG}text")] | Annotated[_Messages, Tag(f"{TAG}messages")],
    Discriminator(lambda value: f"{TAG}text" if isinstance(value, str) else f"{TAG}messages"),
    WithJsonSchema(_MESSAGES_SCHEMA),
]
Instructions = Annotated[
    str,
    Field(min_length=1),
    BeforeValidator(lambda content: join_parts(content, "input_text", JSON_PART)),
    WithJsonSchema(_parts_schema("input_text", JSON_PART)),
]
Value = Annotated[Any, BeforeValidator(_value), WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "boolean"}]})]


class PredicateQuestion(Body):
    """How likely is it that a statement holds?"""

    type: Literal["predicate"]
    name: str | None = None
    instructions: Instructions

    def typed(self) -> TypedQuestion:
        """As the service knows it."""
        return TypedQuestion("predicate", self.instructions)


class Choice(Body):
    """One answer to choose from."""

    value: Value = Field(description="文字或布尔值，同一问题中不能重复")
    description: str | None = None


class ChoiceQuestion(Body):
    """Which of these is it?"""

    type: Literal["choice"]
    name: str | None = None
    instructions: Instructions
    choices: list[Choice] = Field(min_length=2, max_length=MOST_CHOICES, fail_fast=True)

    @model_validator(mode="after")
    def _unique(self) -> ChoiceQuestion:
        _check_unique([(type(choice.value), choice.value) for choice in self.choices], "choices")
        return self

    def typed(self) -> TypedQuestion:
        """As the service knows it."""
        options = [
            Option(str(c.value).lower(), c.description or "", "bool")
            if isinstance(c.value, bool)
            else Option(c.value, c.description or "")
            for c in self.choices
        ]
        return TypedQuestion("choice", self.instructions, tuple(options))


class Level(Body):
    """One step of a scale."""

    label: Annotated[str, BeforeValidator(_value), Field(min_length=1)]
    description: str | None = None


class ScoreQuestion(Body):
    """How much is it, on these levels from low to high?"""

    type: Literal["score"]
    name: str | None = None
    instructions: Instructions
    levels: list[Level] = Field(min_length=2, max_length=MOST_LEVELS, fail_fast=True)

    @model_validator(mode="after")
    def _unique(self) -> ScoreQuestion:
        _check_unique([level.label for level in self.levels], "levels")
        return self

    def typed(self) -> TypedQuestion:
        """As the service knows it."""
        options = tuple(Option(level.label, level.description or "") for level in self.levels)
        return TypedQuestion("score", self.instructions, options)


def _check_unique(values: Sequence[Hashable], field: str) -> None:
    if len(set(values)) != len(values):
        raise complaint(said("twice_in", field=field))


AnyQuestion = Annotated[
    Annotated[PredicateQuestion, Tag(f"{TAG}predicate")]
    | Annotated[ChoiceQuestion, Tag(f"{TAG}choice")]
    | Annotated[ScoreQuestion, Tag(f"{TAG}score")],
    Discriminator(tag_of_type),
]


class DecisionRequest(Body):
    """Something to judge and the questions about it. Null is the same as not set."""

    model: str = Field(description="本服务的模型名，见 GET /v1/models")
    input: Input = Field(description="要判断的文字或对话")
    questions: list[AnyQuestion] = Field(min_length=1, max_length=MOST_QUESTIONS, fail_fast=True)
    safety_identifier: str | None = Field(None, description="接受但不使用：这里没有按最终用户的统计")

    _unset = model_validator(mode="before")(without_nulls)


class PredicateAnswer(BaseModel):
    """The probability that the statement holds."""

    type: Literal["predicate"]
    name: str | None
    probability: float


class ChoiceProbability(BaseModel):
    """Of one choice."""

    value: Value
    probability: float


class ChoiceAnswer(BaseModel):
    """The likeliest choice."""

    type: Literal["choice"]
    name: str | None
    choice: Value
    confidence: float = Field(description="(K * 最大概率 - 1) / (K - 1)")
    probabilities: list[ChoiceProbability]


class LevelProbability(BaseModel):
    """Of one level; the lowest has the value 0."""

    value: int
    label: str
    probability: float


class ScoreAnswer(BaseModel):
    """The expected level, counted from 0."""

    type: Literal["score"]
    name: str | None
    score: float
    confidence: float
    probabilities: list[LevelProbability]


class InputDetails(BaseModel):
    """Of the tokens read: those that did not have to be computed; none are written anywhere at a price."""

    cached_tokens: int
    cache_write_tokens: int


class OutputDetails(BaseModel):
    """The model does not think aloud."""

    reasoning_tokens: int


class DecisionUsage(BaseModel):
    """Tokens: the text once and every question; the chosen answers."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class Decision(BaseModel):
    """One answer for each question, in their order."""

    model: str
    answers: list[PredicateAnswer | ChoiceAnswer | ScoreAnswer]
    usage: DecisionUsage


def register(app: OpenAPI, backend: Backend) -> None:
    """Add the route to `app`."""

    @app.post(
        "/v1/decisions",
        summary="对一段内容提若干有类型的问题，回答概率（与 OpenAI 的接口相同）",
        responses={200: Decision, **error_responses(NestedErrorBody, 400, 404, 413, 415, 500, 503, 504)},
        openapi_extensions=parameters(),
    )
    @needs_engine
    def decide(body: DecisionRequest) -> Response:
        backend.check_model(body.model)
        text = body.input
        messages = [("user", text)] if isinstance(text, str) else [message.pair for message in text]
        asked = [question.typed() for question in body.questions]
        decided, answer = questions.decide(backend.service, messages, asked, terms(backend))
        answers = [_serialise(question, found) for question, found in zip(body.questions, decided, strict=True)]
        return jsonify(model=body.model, answers=answers, usage=_usage(answer))


def _serialise(question: PredicateQuestion | ChoiceQuestion | ScoreQuestion, found: Decided) -> dict[str, Any]:
    head = {"type": question.type, "name": question.name}
    if isinstance(question, PredicateQuestion):
        return head | {"probability": found.probabilities[0]}
    if isinstance(question, ChoiceQuestion):
        values = [choice.value for choice in question.choices]
        return head | {
            "choice": values[found.best],
            "confidence": found.confidence,
            "probabilities": [
                {"value": value, "probability": share} for value, share in zip(values, found.probabilities, strict=True)
            ],
        }
    levels = zip(question.levels, found.probabilities, strict=True)
    return head | {
        "score": found.expected,
        "confidence": found.confidence,
        "probabilities": [
            {"value": value, "label": level.label, "probability": share} for value, (level, share) in enumerate(levels)
        ],
    }


def _usage(answer: Answer) -> dict[str, Any]:
    result = answer.result
    return DecisionUsage(
        input_tokens=result.prompt_tokens,
        input_tokens_details=InputDetails(cached_tokens=result.reused_tokens, cache_write_tokens=0),
        output_tokens=len(result.ids),
        output_tokens_details=OutputDetails(reasoning_tokens=0),
        total_tokens=result.prompt_tokens + len(result.ids),
    ).model_dump()
