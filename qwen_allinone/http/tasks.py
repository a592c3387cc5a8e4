"""GET /v1/tasks and POST /v1/tasks/<task>: one endpoint for each prompt folder, made from its inputs."""

from __future__ import annotations

from typing import Any, Literal

from flask import Response, jsonify
from flask_openapi import OpenAPI
from pydantic import BaseModel, Field, create_model

from qwen_allinone.allinone import AllInOne, Answer
from qwen_allinone.caching import is_cacheable
from qwen_allinone.http import demand
from qwen_allinone.http.body import Body
from qwen_allinone.http.detail import WANTED, Detail, describe
from qwen_allinone.http.errors import NestedErrorBody, error_responses
from qwen_allinone.http.presence import Presence
from qwen_allinone.http.remember import PARAMETER, cache_use, tell
from qwen_allinone.http.usage import note
from qwen_allinone.tasks import Task


class TaskInfo(BaseModel):
    """One task, as its prompt folder describes it."""

    name: str
    description: str
    kind: Literal["label", "text"]
    inputs: dict[str, dict[str, int]] = Field(description="Each input with its cap in tokens")
    labels: list[str] = Field(description="The labels of a label task; empty for free text")


class TaskList(BaseModel):
    """All tasks of this server."""

    tasks: list[TaskInfo]


class LabelAnswer(BaseModel):
    """The answer of a label task."""

    task: str
    label: str
    detail: Detail | None = Field(None, description="Only if asked for")


class TextAnswer(BaseModel):
    """The answer of a free-text task."""

    task: str
    text: str
    detail: Detail | None = Field(None, description="Only if asked for")


def register(app: OpenAPI, service: AllInOne, presence: Presence) -> None:
    """Add the list, one route for each task, and a 404 that names the tasks there are."""

    @app.get("/v1/tasks", summary="列出所有任务", responses={200: TaskList})
    def list_tasks() -> Response:
        return jsonify(tasks=[_describe(task) for task in service.registry])

    for task in service.registry:
        _register_task(app, service, presence, task)

    def unknown_task(name: str) -> Response:
        service.registry.get(name)  # raises UnknownTask; known names have their own routes above
        raise AssertionError(f"task {name} has no route")

    # Not a route to document, so Flask's own way of adding one.
    app.add_url_rule("/v1/tasks/<name>", view_func=unknown_task, methods=["POST"])


def _register_task(app: OpenAPI, service: AllInOne, presence: Presence, task: Task) -> None:
    model = _body_model(task)
    answer_model = LabelAnswer if task.labels else TextAnswer

    @demand.needs_engine
    def run_task(body: Body) -> Response:
        inputs = body.model_dump()
        wants_detail = inputs.pop("detail")
        use, timeout_s = cache_use(), demand.timeout_s()
        answer = note(service.run(task.name, inputs, deadline_s=timeout_s, watch=presence.watch, cache=use))
        shown: dict[str, Any] = _serialise(answer)
        if wants_detail:
            shown["detail"] = describe(service, answer)
        return tell(jsonify(shown), answer)

    # flask-openapi reads the body's model from the annotation; each task has a model of its own.
    run_task.__annotations__["body"] = model
    run_task.__name__ = f"task_{task.name}"
    app.post(
        f"/v1/tasks/{task.name}",
        summary=task.spec.description,
        responses={200: answer_model, **error_responses(NestedErrorBody, 400, 413, 415, 500, 503, 504)},
        openapi_extensions={"parameters": [*demand.TIMEOUT_PARAMETER["parameters"], *_cache_parameters(task)]},
    )(run_task)


def _cache_parameters(task: Task) -> list[dict[str, Any]]:
    return [PARAMETER] if is_cacheable(task) else []


def _body_model(task: Task) -> type[Body]:
    fields: dict[str, Any] = {
        name: (str, Field(description=f"最多 {spec.max_tokens} 个 token")) for name, spec in task.spec.inputs.items()
    }
    return create_model(f"Task_{task.name}", __base__=Body, **fields, detail=(bool, WANTED))


def _serialise(answer: Answer) -> dict[str, str]:
    if answer.label is not None:
        return {"task": answer.task, "label": answer.label}
    return {"task": answer.task, "text": answer.text}


def _describe(task: Task) -> dict[str, Any]:
    return TaskInfo(
        name=task.name,
        description=task.spec.description,
        kind=task.spec.output.kind,
        inputs={name: {"max_tokens": spec.max_tokens} for name, spec in task.spec.inputs.items()},
        labels=list(task.labels),
    ).model_dump()
