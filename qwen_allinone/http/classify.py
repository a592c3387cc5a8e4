"""POST /v1/classify: labels and their probabilities for one text or many, in the shape of vLLM's route of that name."""

from __future__ import annotations

import time
import uuid
from typing import Annotated, Any, Literal

from flask import Response, jsonify
from flask_openapi import OpenAPI
from pydantic import BaseModel, BeforeValidator, Field, StringConstraints, WithJsonSchema

from qwen_allinone.errors import InvalidInput, RequestError
from qwen_allinone.http.backend import Backend
from qwen_allinone.http.body import Body
from qwen_allinone.http.error_answers import NestedErrorBody, error_responses
from qwen_allinone.http.request_terms import needs_engine, parameters, tell_cache, terms
from qwen_allinone.service import Answer, Service
from qwen_allinone.tasks import SENTIMENT
from qwen_allinone.wording import said

_MOST_INPUTS = 256
_INPUT_SCHEMA = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": _MOST_INPUTS},
    ]
}


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Inputs = Annotated[list[str], BeforeValidator(_as_list), WithJsonSchema(_INPUT_SCHEMA)]


class ClassifyRequest(Body):
    """Texts and the label task that is to judge them."""

    model: str = Field(description="本服务的模型名，见 GET /v1/models")
    input: Inputs = Field(min_length=1, max_length=_MOST_INPUTS, fail_fast=True, description="一段文字，或最多 256 段")
    task: Annotated[str, StringConstraints(max_length=64)] = Field(
        SENTIMENT, description="标签任务的名字，见 GET /v1/tasks"
    )


class Classification(BaseModel):
    """What was found for one text. `probs` are in the order of the task's labels, see GET /v1/tasks."""

    index: int
    label: str
    probs: list[float]
    num_classes: int


class ClassifyUsage(BaseModel):
    """Tokens of all texts together."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Classifications(BaseModel):
    """One classification for each text, in their order."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[Classification]
    usage: ClassifyUsage


def register(app: OpenAPI, backend: Backend) -> None:
    """Add the route to `app`."""
    service = backend.service

    @app.post(
        "/v1/classify",
        summary="用标签任务给一段或多段文字分类（与 vLLM 的接口相同）",
        responses={200: Classifications, **error_responses(NestedErrorBody, 400, 404, 413, 415, 500, 503, 504)},
        openapi_extensions=parameters(cache=True),
    )
    @needs_engine
    def classify(body: ClassifyRequest) -> Response:
        backend.check_model(body.model)
        name = _only_input(service, body.task)
        asked = [(body.task, {name: text}) for text in body.input]
        try:
            answers = service.run_all(asked, terms(backend))
        except RequestError as error:
            if error.index is not None:
                error.param = f"input[{error.index}]" if len(asked) > 1 else "input"
            raise
        shown = jsonify(
            id=f"classify-{uuid.uuid4().hex}",
            object="list",
            created=int(time.time()),
            model=body.model,
            data=[_serialise(index, answer) for index, answer in enumerate(answers)],
            usage=_usage(answers),
        )
        return tell_cache(shown, answers)


def _only_input(service: Service, name: str) -> str:
    """The name of the one input of a label task; raises UnknownTask, or InvalidInput for a task of another kind."""
    task = service.registry.get(name)
    if not task.labels:
        raise InvalidInput(said("no_label_task", name=name), param="task")
    if len(task.spec.inputs) != 1:
        raise InvalidInput(said("several_inputs", name=name), param="task")
    return next(iter(task.spec.inputs))


def _serialise(index: int, answer: Answer) -> dict[str, Any]:
    probabilities = list((answer.probabilities or {}).values())
    return {"index": index, "label": answer.label, "probs": probabilities, "num_classes": len(probabilities)}


def _usage(answers: list[Answer]) -> dict[str, int]:
    """As vLLM counts: what is read; a label is chosen, not generated."""
    prompt = sum(answer.result.prompt_tokens for answer in answers)
    return ClassifyUsage(prompt_tokens=prompt, completion_tokens=0, total_tokens=prompt).model_dump()
