"""POST /v1/route: the task `route` picks a task for a text; the answer is that task's."""

from __future__ import annotations

from flask import Response, jsonify
from flask_openapi import OpenAPI
from pydantic import Field

from qwen_allinone.http.backend import Backend
from qwen_allinone.http.body import Body
from qwen_allinone.http.detail import WANTED
from qwen_allinone.http.error_answers import NestedErrorBody, error_responses
from qwen_allinone.http.request_terms import needs_engine, parameters, tell_cache, terms
from qwen_allinone.http.tasks import AnyAnswer, serialise
from qwen_allinone.tasks import ROUTE


class RouteRequest(Body):
    """A text of any kind, with or without a request before it."""

    text: str = Field(description="要处理的文字，前面可以写明要求", examples=["翻译一下：我喜欢喝茶"])
    detail: bool = WANTED


def register(app: OpenAPI, backend: Backend) -> None:
    """Add the route to `app`, if there is a task that picks."""
    service = backend.service
    if ROUTE not in service.registry:
        return

    @app.post(
        "/v1/route",
        summary="挑选适合的任务并执行",
        responses={200: AnyAnswer, **error_responses(NestedErrorBody, 400, 413, 415, 500, 503, 504)},
        openapi_extensions=parameters(cache=True),
    )
    @needs_engine
    def route(body: RouteRequest) -> Response:
        routed = service.route(body.text, terms(backend, detail=body.detail))
        return tell_cache(jsonify(serialise(service, routed.answer, body.detail)), (routed.choice, routed.answer))
