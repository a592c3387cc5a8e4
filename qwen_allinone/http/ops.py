"""What a supervisor asks: is the process alive, is the model ready."""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify
from flask_openapi import OpenAPI
from pydantic import BaseModel, Field

from qwen_allinone.engine import Engine, Status
from qwen_allinone.http.auth import is_stranger

_RETRY_AFTER_S = 5


class Health(BaseModel):
    """`ok`, or what the engine is doing instead."""

    status: str


class Readiness(Health):
    """With the reason, when the model could not be loaded."""

    problem: str | None = Field(None, description="What is wrong and the ways out, for the operator")


def register(app: OpenAPI, engine: Engine[Any]) -> None:
    """Add /livez, /readyz and /health."""

    @app.get("/livez", summary="进程是否存活", responses={200: Health})
    def livez() -> Response:
        return jsonify(status="ok")

    @app.get("/readyz", summary="模型是否就绪，未就绪时说明原因", responses={200: Readiness, 503: Readiness})
    def readyz() -> Response:
        return _state(engine, with_problem=not is_stranger())  # it names folders and settings

    @app.get("/health", summary="服务是否可用", responses={200: Health, 503: Health})
    def health() -> Response:
        return _state(engine, with_problem=False)


def _state(engine: Engine[Any], *, with_problem: bool) -> Response:
    status = engine.status
    if status is Status.READY:
        return jsonify(status="ok")
    body = {"status": status.value}
    if with_problem and engine.problem:
        body["problem"] = engine.problem
    response = jsonify(body)
    response.status_code = 503
    response.headers["Retry-After"] = str(_RETRY_AFTER_S)
    return response
