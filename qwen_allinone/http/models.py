"""GET /v1/models: the model there is, by each of its names."""

from __future__ import annotations

import time
from typing import Literal

from flask import Response, jsonify
from flask_openapi import OpenAPI
from pydantic import BaseModel, Field

from qwen_allinone.http.backend import Backend
from qwen_allinone.http.error_answers import NestedErrorBody, error_responses


class Model(BaseModel):
    """The model of this server, by one of its names."""

    id: str
    object: Literal["model"]
    created: int = Field(description="When this process was started, in Unix seconds")
    owned_by: str


class ModelList(BaseModel):
    """One model, by each of its names."""

    object: Literal["list"]
    data: list[Model]


class ModelPath(BaseModel):
    """A model's name, slashes included."""

    model: str


def register(app: OpenAPI, backend: Backend) -> None:
    """Add the routes to `app`."""
    created = int(time.time())
    models = {
        name: Model(id=name, object="model", created=created, owned_by="qwen-allinone") for name in backend.model_names
    }

    @app.get("/v1/models", summary="列出模型（只有一个，可以有几个名字）", responses={200: ModelList})
    def list_models() -> Response:
        return jsonify(ModelList(object="list", data=list(models.values())).model_dump())

    @app.get(
        "/v1/models/<path:model>",
        summary="一个模型",
        responses={200: Model, **error_responses(NestedErrorBody, 404)},
    )
    def retrieve_model(path: ModelPath) -> Response:
        backend.check_model(path.model)
        return jsonify(models[path.model].model_dump())
