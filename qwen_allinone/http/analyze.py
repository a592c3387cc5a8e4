"""POST /v1/analyze: several tasks on one text in one call, computed side by side."""

from __future__ import annotations

from flask import Response, jsonify
from flask_openapi import OpenAPI
from pydantic import BaseModel, Field

from qwen_allinone.errors import InvalidInput
from qwen_allinone.http.backend import Backend
from qwen_allinone.http.body import Body
from qwen_allinone.http.detail import WANTED
from qwen_allinone.http.error_answers import NestedErrorBody, error_responses
from qwen_allinone.http.request_terms import needs_engine, parameters, tell_cache, terms
from qwen_allinone.http.tasks import AnyAnswer, serialise
from qwen_allinone.service import Service
from qwen_allinone.wording import said


class AnalyzeRequest(Body):
    """One text and the tasks to run on it."""

    text: str = Field(description="要分析的文字", examples=["房间很干净，但是隔音太差"])
    tasks: list[str] = Field(
        fail_fast=True, description="任务名，不能为空，不能重复", examples=[["sentiment", "keywords"]]
    )
    detail: bool = WANTED


class AnalyzeResponse(BaseModel):
    """The answers, in the order of the tasks asked for."""

    results: list[AnyAnswer]


def register(app: OpenAPI, backend: Backend) -> None:
    """Add the route to `app`."""
    service = backend.service

    @app.post(
        "/v1/analyze",
        summary="一次调用，对同一段文字执行多个任务",
        responses={200: AnalyzeResponse, **error_responses(NestedErrorBody, 400, 404, 413, 415, 500, 503, 504)},
        openapi_extensions=parameters(cache=True),
    )
    @needs_engine
    def analyze(body: AnalyzeRequest) -> Response:
        _check_tasks(service, body.tasks)
        asked = [(name, {"text": body.text}) for name in body.tasks]
        answers = service.run_all(asked, terms(backend, detail=body.detail))
        return tell_cache(jsonify(results=[serialise(service, a, body.detail) for a in answers]), answers)


def _check_tasks(service: Service, names: list[str]) -> None:
    """Raises InvalidInput (none, one twice, one that needs more than a text) or UnknownTask."""
    fitting = [task.name for task in service.registry if set(task.spec.inputs) == {"text"}]
    allowed = said("fitting_tasks", fitting=fitting)
    if not names:
        raise InvalidInput(said("no_tasks", allowed=allowed), param="tasks")
    for name in names:
        service.registry.get(name)  # raises UnknownTask
        if name not in fitting:
            raise InvalidInput(said("more_inputs", name=name, allowed=allowed), param="tasks")
    if len(set(names)) < len(names):
        raise InvalidInput(said("task_twice"), param="tasks")
