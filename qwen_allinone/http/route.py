"""POST /v1/route: the task `route` picks a task for a text; the answer is that task's."""

from __future__ import annotations

from flask import Response, jsonify
from flask_openapi import OpenAPI
from pydantic import Field

from qwen_allinone.http import demand
from qwen_allinone.http.body import Body
from qwen_allinone.http.detail import WANTED
from qwen_allinone.http.errors import NestedErrorBody, error_responses
from qwen_allinone.http.presence import Presence
from qwen_allinone.http.remember import cache_use
from qwen_allinone.http.tasks import AnyAnswer, serialise
from qwen_allinone.http.usage import note
from qwen_allinone.service import AllInOne
from qwen_allinone.tasks import ROUTE


class RouteRequest(Body):
    """A text of any kind, with or without a request before it."""

    text: str = Field(description="要处理的文字，前面可以写明要求", examples=["翻译一下：我喜欢喝茶"])
    detail: bool = WANTED


def register(app: OpenAPI, service: AllInOne, presence: Presence) -> None:
    """Add the route to `app`, if there is a task that picks."""
    if ROUTE not in service.registry:
        return

    @app.post(
        "/v1/route",
        summary="挑选适合的任务并执行",
        responses={200: AnyAnswer, **error_responses(NestedErrorBody, 400, 413, 415, 500, 503, 504)},
        openapi_extensions=demand.TIMEOUT_PARAMETER,
    )
    @demand.needs_engine
    def route(body: RouteRequest) -> Response:
        timeout_s = demand.timeout_s()
        routed = service.route(body.text, deadline_s=timeout_s, watch=presence.watch, cache=cache_use())
        note(routed.choice)
        return jsonify(serialise(service, note(routed.answer), body.detail))
