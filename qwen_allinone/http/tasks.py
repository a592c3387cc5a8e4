"""GET /v1/tasks and POST /v1/tasks/<task>: one endpoint for each prompt folder, made from its inputs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from flask import Response, jsonify
from flask_openapi import OpenAPI
from pydantic import BaseModel, Field, RootModel, create_model

from qwen_allinone.http.backend import Backend
from qwen_allinone.http.body import Body
from qwen_allinone.http.detail import WANTED, Detail, describe
from qwen_allinone.http.error_answers import FIELDS_OF_OTHERS, NestedErrorBody, error_responses
from qwen_allinone.http.request_terms import needs_engine, parameters, tell_cache, terms
from qwen_allinone.service import Answer, GoldFit, Service, is_cacheable
from qwen_allinone.tasks import Kind, Task
from qwen_allinone.wording import Said, said

BELOW: Any = Field(
    None,
    ge=0.0,
    le=1.0,
    description="最大概率低于它时不给标签：回答任务的 unknown 名称，没有的话回答 null；代替任务自己的界限",
)


class GoldInfo(BaseModel):
    """How a label task does on its gold cases under the model in use. Shares of 1."""

    cases: int
    accuracy: float = Field(description="Of the answers it gives; where fitted, of a fit to the other cases")
    raw_accuracy: float = Field(description="Of the answers as the model has them")
    fitted: bool = Field(description="Whether what the prompt prefers is taken out of the answers")


class TaskInfo(BaseModel):
    """One task, as its prompt folder describes it."""

    name: str
    description: str
    kind: Kind
    inputs: dict[str, dict[str, int]] = Field(description="Each input with its cap in tokens")
    labels: list[str] = Field(description="The labels of a label task; empty for the other kinds")
    gold: GoldInfo | None = Field(None, description="Absent for the other kinds, and until a model is there")


class TaskList(BaseModel):
    """All tasks of this server."""

    tasks: list[TaskInfo]


class LabelAnswer(BaseModel):
    """The answer of a label task."""

    task: str
    label: str | None = Field(description="null only where the request gave `below` and no label is as likely")
    detail: Detail | None = Field(None, description="Only if asked for")


class TextAnswer(BaseModel):
    """The answer of a free-text task."""

    task: str
    text: str
    detail: Detail | None = Field(None, description="Only if asked for")


class ListAnswer(BaseModel):
    """The answer of a list task."""

    task: str
    items: list[str]
    detail: Detail | None = Field(None, description="Only if asked for")


class JsonAnswer(BaseModel):
    """The answer of a json task."""

    task: str
    value: Any = Field(description="What fits the task's schema; null where the answer was cut at its limit")
    finish_reason: Literal["stop", "length"] = Field(description="length: cut, the prompt's max_new_tokens are too few")
    detail: Detail | None = Field(None, description="Only if asked for")


class AnyAnswer(RootModel[LabelAnswer | TextAnswer | ListAnswer | JsonAnswer]):
    """What POST /v1/tasks/<task> answers, whatever the task's kind."""


ANSWERS: dict[Kind, type[BaseModel]] = {
    "label": LabelAnswer, "text": TextAnswer, "list": ListAnswer, "json": JsonAnswer,
}  # fmt: skip


def register(app: OpenAPI, backend: Backend) -> None:
    """Add the list, one route for each task, and a 404 that names the tasks there are."""
    service = backend.service

    @app.get("/v1/tasks", summary="列出所有任务", responses={200: TaskList})
    def list_tasks() -> Response:
        fits = service.gold_fits()
        return jsonify(tasks=[_describe(task, fits.get(task.name)) for task in service.registry])

    for task in service.registry:
        _register_task(app, backend, task)
    app.extensions[FIELDS_OF_OTHERS] = dict.fromkeys(map(_title, service.registry), _takers(service.registry))

    def unknown_task(name: str) -> Response:
        service.registry.get(name)  # raises UnknownTask; known names have their own routes above
        raise AssertionError(f"task {name} has no route")

    # Not a route to document, so Flask's own way of adding one.
    app.add_url_rule("/v1/tasks/<name>", view_func=unknown_task, methods=["POST"])


def _register_task(app: OpenAPI, backend: Backend, task: Task) -> None:
    model = _body_model(task)
    answer_model = ANSWERS[task.spec.output.kind]

    @needs_engine
    def run_task(body: Body) -> Response:
        inputs = body.model_dump()
        wants_detail, below = inputs.pop("detail"), inputs.pop("below", None)
        answer = backend.service.run(task.name, inputs, terms(backend, detail=wants_detail))
        shown = serialise(backend.service, answer, wants_detail)
        if below is not None:
            shown["label"] = _bounded(task, answer, below)
        return tell_cache(jsonify(shown), (answer,))

    # flask-openapi reads the body's model from the annotation; each task has a model of its own.
    run_task.__annotations__["body"] = model
    run_task.__name__ = f"task_{task.name}"
    app.post(
        f"/v1/tasks/{task.name}",
        summary=task.spec.description,
        responses={200: answer_model, **error_responses(NestedErrorBody, 400, 413, 415, 500, 503, 504)},
        openapi_extensions=parameters(cache=is_cacheable(task)),
    )(run_task)


def _body_model(task: Task) -> type[Body]:
    fields: dict[str, Any] = {
        name: (str, Field(description=f"最多 {spec.max_tokens} 个 token")) for name, spec in task.spec.given.items()
    }
    if task.labels:
        fields["below"] = (float | None, BELOW)
    return create_model(_title(task), __base__=Body, **fields, detail=(bool, WANTED))


def _title(task: Task) -> str:
    """Of the task's body, as pydantic and the OpenAPI document call it."""
    return f"Task_{task.name}"


def _takers(tasks: Iterable[Task]) -> dict[str, Said]:
    """Which tasks take a field, by its name, as a task that does not take it says it."""
    named: dict[str, list[str]] = {}
    for task in tasks:
        for name in task.spec.given:
            named.setdefault(name, []).append(task.name)
    told = {name: said("only_tasks", tasks=names) for name, names in named.items()}
    return told | {"below": said("only_label_tasks")}


def _bounded(task: Task, answer: Answer, below: float) -> str | None:
    """The likeliest label; where its probability is under `below` the task's name for that, or None if it has none."""
    shares = answer.probabilities or {}
    best = answer.label if answer.label in shares else max(shares, key=lambda label: shares[label])
    if max(shares.values()) >= below:
        return best
    unknown = task.spec.output.unknown
    return unknown.name if unknown else None


def serialise(service: Service, answer: Answer, wants_detail: bool) -> dict[str, Any]:
    """`task`, and `label`, `items`, `value` or `text` as the task's kind is; `detail` if it is wanted."""
    shown: dict[str, Any] = {"task": answer.task}
    if answer.label is not None:
        shown["label"] = answer.label
    elif answer.items is not None:
        shown["items"] = list(answer.items)
    elif service.registry.get(answer.task).grammar:
        shown |= {"value": answer.value, "finish_reason": answer.result.finish_reason.value}
    else:
        shown["text"] = answer.text
    if wants_detail:
        shown["detail"] = describe(answer)
    return shown


def _describe(task: Task, fit: GoldFit | None) -> dict[str, Any]:
    shown = TaskInfo(
        name=task.name,
        description=task.spec.description,
        kind=task.spec.output.kind,
        inputs={name: {"max_tokens": spec.max_tokens} for name, spec in task.spec.given.items()},
        labels=list(task.labels),
        gold=None,
    ).model_dump(exclude={"gold"})
    if fit:
        accuracy, raw, fitted = round(fit.accuracy, 4), round(fit.raw, 4), fit.prior is not None
        shown["gold"] = GoldInfo(cases=fit.cases, accuracy=accuracy, raw_accuracy=raw, fitted=fitted).model_dump()
    return shown
