"""What every request that needs the engine has in common: a place to find, and a time limit of the client's own."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar, cast

from flask import request
from flask_openapi import OpenAPI

from qwen_allinone.engine import Engine
from qwen_allinone.errors import InvalidInput, ServerBusy
from qwen_allinone.http.body import StrictRequest

TIMEOUT_HEADER = "X-Timeout-Ms"
_MILLISECONDS = re.compile(r"0{0,9}[1-9][0-9]{0,9}", re.ASCII)
_MARK = "_needs_engine"

View = TypeVar("View", bound=Callable[..., Any])

# For `openapi_extensions` of a route. flask-openapi's own header models build a JSON schema on every request.
TIMEOUT_PARAMETER: dict[str, Any] = {
    "parameters": [
        {
            "name": TIMEOUT_HEADER,
            "in": "header",
            "required": False,
            "description": "这个请求最多等待的毫秒数（正整数），只能缩短服务器的时限；超过即 504，预计来不及则立即 503",
            "schema": {"type": "integer", "minimum": 1},
        }
    ]
}


def needs_engine(view: View) -> View:
    """Mark a view function: where the engine is full, its requests are refused before their body is parsed."""
    setattr(view, _MARK, True)
    return view


def register(app: OpenAPI, engine: Engine) -> None:
    """Refuse early what would be refused anyway. The place itself is taken by the service, see Engine.admit."""

    @app.before_request
    def check_room() -> None:
        if not hasattr(app.view_functions.get(request.endpoint or ""), _MARK):
            return
        try:
            engine.check_room()
        except ServerBusy:
            cast(
                StrictRequest, request
            ).read_body()  # a body left behind would have the connection reset, and the answer with it
            raise


def timeout_s() -> float | None:
    """The client's own limit for the request in hand, in seconds; None if it set none.

    Raises:
        InvalidInput: the header is not a positive integer.
    """
    given = request.headers.get(TIMEOUT_HEADER)
    if given is None:
        return None
    if not _MILLISECONDS.fullmatch(given.strip()):
        raise InvalidInput(f"请求头 {TIMEOUT_HEADER} 必须是正整数，单位毫秒", param=TIMEOUT_HEADER)
    return int(given) / 1000
