"""What a supervisor asks: is the process alive, is the model ready."""

from __future__ import annotations

from flask import Response, jsonify
from flask_openapi import OpenAPI
from pydantic import BaseModel, Field

from qwen_allinone.engine import Status
from qwen_allinone.http.request_state import state
from qwen_allinone.service import Service

_RETRY_AFTER_S = 5


class Health(BaseModel):
    """`ok`, or what the engine is doing instead."""

    status: str


class Readiness(Health):
    """With the reason, when the model could not be loaded, and with what to look at when it was."""

    problem: str | None = Field(None, description="What is wrong and the ways out, for the operator")
    warnings: list[str] | None = Field(None, description="Label tasks that only guess under this model")


def register(app: OpenAPI, service: Service) -> None:
    """Add /livez, /readyz and /health."""

    @app.get("/livez", summary="进程是否存活", responses={200: Health})
    def livez() -> Response:
        return jsonify(status="ok")

    @app.get("/readyz", summary="模型是否就绪，未就绪时说明原因", responses={200: Readiness, 503: Readiness})
    def readyz() -> Response:
        return _state(service, with_problem=not state.is_stranger)  # it names folders and settings

    @app.get("/health", summary="服务是否可用", responses={200: Health, 503: Health})
    def health() -> Response:
        return _state(service, with_problem=False)


def _state(service: Service, *, with_problem: bool) -> Response:
    engine = service.engine
    status = engine.status
    if status is Status.READY:
        guessing = [name for name, fit in service.gold_fits().items() if fit.guesses] if with_problem else []
        told = {"warnings": [f"{name}: no better than guessing on its gold cases" for name in guessing]}
        return jsonify(status="ok", **(told if guessing else {}))
    body = {"status": status.value}
    if with_problem and engine.problem:
        body["problem"] = engine.problem
    response = jsonify(body)
    response.status_code = 503
    response.headers["Retry-After"] = str(_RETRY_AFTER_S)
    return response
