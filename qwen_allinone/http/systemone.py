"""POST /v1/systemone: typed questions about a state, in the shape that several servers of decision models share.

The same as /v1/decisions, asked and answered by name; `noul` is what is called a predicate there.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from flask import Response, jsonify
from flask_openapi import OpenAPI
from pydantic import BaseModel, BeforeValidator, Discriminator, Field, Tag, WithJsonSchema, model_validator

from qwen_allinone.http.backend import Backend
from qwen_allinone.http.body import Body
from qwen_allinone.http.decisions import MOST_CHOICES, MOST_LEVELS, MOST_QUESTIONS
from qwen_allinone.http.error_answers import TAG, NestedErrorBody, error_responses, tag_of_type
from qwen_allinone.http.messages import complaint, without_nulls
from qwen_allinone.http.request_terms import needs_engine, parameters, terms
from qwen_allinone.service import Answer, questions
from qwen_allinone.service.questions import Decided, Option, TypedQuestion
from qwen_allinone.wording import said


def _as_text(value: Any) -> Any:
    """Structured data as the model reads it: JSON."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) and value else value


def _filled(value: str) -> str:
    if not value.strip():
        raise complaint(said("no_empty_name"))
    return value


Said = Annotated[
    str,
    Field(min_length=1),
    BeforeValidator(_as_text),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object"}, {"type": "array"}]}),
]
Filled = Annotated[str, BeforeValidator(lambda value: _filled(value) if isinstance(value, str) else value)]


class NoulCriteria(Body):
    """What yes and no mean."""

    true: str = ""
    false: str = ""

    _unset = model_validator(mode="before")(without_nulls)


class NoulQuestion(Body):
    """Does it hold?"""

    type: Literal["noul"]
    instructions: Said
    criteria: NoulCriteria = Field(default_factory=NoulCriteria, description="是和否各是什么意思")

    _unset = model_validator(mode="before")(without_nulls)

    def typed(self) -> TypedQuestion:
        """As the service knows it."""
        meant = [f"{word}：{text}" for word, text in (("是", self.criteria.true), ("否", self.criteria.false)) if text]
        return TypedQuestion("predicate", "\n".join([self.instructions, *meant]))


class NamedChoiceQuestion(Body):
    """Which of these is it?"""

    type: Literal["choice"]
    instructions: Said
    criteria: dict[Filled, str | None] = Field(
        min_length=2, max_length=MOST_CHOICES, description="选项到它的说明，说明可为 null"
    )

    def typed(self) -> TypedQuestion:
        """As the service knows it."""
        options = [Option(name, description or "") for name, description in self.criteria.items()]
        return TypedQuestion("choice", self.instructions, tuple(options))


class LevelsQuestion(Body):
    """How much is it, on these levels from low to high?"""

    type: Literal["score"]
    instructions: Said
    criteria: list[Filled] = Field(min_length=2, max_length=MOST_LEVELS, fail_fast=True)

    @model_validator(mode="after")
    def _unique(self) -> LevelsQuestion:
        if len(set(self.criteria)) < len(self.criteria):
            raise complaint(said("twice_in", field="criteria"))
        return self

    def typed(self) -> TypedQuestion:
        """As the service knows it."""
        return TypedQuestion("score", self.instructions, tuple(map(Option, self.criteria)))


NamedQuestion = Annotated[
    Annotated[NoulQuestion, Tag(f"{TAG}noul")]
    | Annotated[NamedChoiceQuestion, Tag(f"{TAG}choice")]
    | Annotated[LevelsQuestion, Tag(f"{TAG}score")],
    Discriminator(tag_of_type),
]


class SystemOneRequest(Body):
    """A state and the questions about it, by names that the answers have too."""

    model: str = Field(description="本服务的模型名，见 GET /v1/models")
    state: Said = Field(description="要判断的文字，或者对象、数组")
    questions: dict[str, NamedQuestion] = Field(min_length=1, max_length=MOST_QUESTIONS)


class NoulAnswer(BaseModel):
    """The probability that it holds."""

    type: Literal["noul"]
    noul: float


class NamedChoiceAnswer(BaseModel):
    """The likeliest choice."""

    type: Literal["choice"]
    choice: str
    confidence: float = Field(description="(K * 最大概率 - 1) / (K - 1)")
    probabilities: dict[str, float]


class LevelsAnswer(BaseModel):
    """The expected level, counted from 0; `probabilities` and the levels' texts in `legend` by their numbers."""

    type: Literal["score"]
    score: float
    confidence: float
    probabilities: dict[str, float]
    legend: dict[str, str]


class SystemOneUsage(BaseModel):
    """Tokens: the state once and every question; the chosen answers."""

    input_tokens: int
    output_tokens: int


class SystemOneAnswer(BaseModel):
    """One answer for each question, by its name."""

    model: str
    answers: dict[str, NoulAnswer | NamedChoiceAnswer | LevelsAnswer]
    usage: SystemOneUsage


def register(app: OpenAPI, backend: Backend) -> None:
    """Add the route to `app`."""

    @app.post(
        "/v1/systemone",
        summary="对一段内容提若干有类型的问题，按名称回答概率（与 System One 的接口相同）",
        responses={200: SystemOneAnswer, **error_responses(NestedErrorBody, 400, 404, 413, 415, 500, 503, 504)},
        openapi_extensions=parameters(),
    )
    @needs_engine
    def systemone(body: SystemOneRequest) -> Response:
        backend.check_model(body.model)
        asked = [question.typed() for question in body.questions.values()]
        said = [("user", body.state)]
        decided, answer = questions.decide(backend.service, said, asked, terms(backend), "state")
        named = zip(body.questions.items(), decided, strict=True)
        answers = {name: _serialise(question, found) for (name, question), found in named}
        return jsonify(model=body.model, answers=answers, usage=_usage(answer))


def _serialise(question: NoulQuestion | NamedChoiceQuestion | LevelsQuestion, found: Decided) -> dict[str, Any]:
    if isinstance(question, NoulQuestion):
        return {"type": "noul", "noul": found.probabilities[0]}
    if isinstance(question, NamedChoiceQuestion):
        names = list(question.criteria)
        return {
            "type": "choice",
            "choice": names[found.best],
            "confidence": found.confidence,
            "probabilities": dict(zip(names, found.probabilities, strict=True)),
        }
    return {
        "type": "score",
        "score": found.expected,
        "confidence": found.confidence,
        "probabilities": {str(level): share for level, share in enumerate(found.probabilities)},
        "legend": {str(level): text for level, text in enumerate(question.criteria)},
    }


def _usage(answer: Answer) -> dict[str, int]:
    return {"input_tokens": answer.result.prompt_tokens, "output_tokens": len(answer.result.ids)}
