"""What requests for the engine ask beside their body: a time limit, a use of the cache; and their early refusal."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable
from typing import Any, TypeVar

from flask import Response, request
from flask_openapi import OpenAPI

from qwen_allinone.errors import InvalidInput, PriorityForbidden
from qwen_allinone.http.backend import Backend
from qwen_allinone.http.request_state import state
from qwen_allinone.service import Answer, CacheUse, Terms
from qwen_allinone.wording import said

TIMEOUT_HEADER = "X-Timeout-Ms"
CACHE_HEADER = "X-Cache"
PRIORITY_HEADER = "X-Priority"
_MILLISECONDS = re.compile(r"0{0,9}[1-9][0-9]{0,9}", re.ASCII)
_DIGIT = re.compile(r"[0-9]", re.ASCII)
_MARK = "_needs_engine"
_LOOK = "_look_early"

View = TypeVar("View", bound=Callable[..., Any])

# For `openapi_extensions` of a route. flask-openapi's own header models build a JSON schema on every request.
_TIMEOUT: dict[str, Any] = {
    "name": TIMEOUT_HEADER,
    "in": "header",
    "required": False,
    "description": "这个请求最多等待的毫秒数（正整数），只能缩短服务器的时限；超过即 504，预计来不及则立即 503",
    "schema": {"type": "integer", "minimum": 1},
}
_PRIORITY: dict[str, Any] = {
    "name": PRIORITY_HEADER,
    "in": "header",
    "required": False,
    "description": "0 到 9，越大排队越靠前；缺省 0；大于 0 需要 QAIO_PRIORITY_KEYS 里的密钥",
    "schema": {"type": "integer", "minimum": 0, "maximum": 9},
}
_CACHE: dict[str, Any] = {
    "name": "Cache-Control",
    "in": "header",
    "required": False,
    "description": "no-store：不查缓存也不写入缓存；no-cache：重新计算并更新缓存",
    "schema": {"type": "string"},
}


def parameters(*, cache: bool = False) -> dict[str, Any]:
    """The headers that a route reads, for its `openapi_extensions`; `cache`: its answers may be remembered ones."""
    return {"parameters": [_TIMEOUT, _PRIORITY, _CACHE] if cache else [_TIMEOUT, _PRIORITY]}


def needs_engine(view: View) -> View:
    """Mark a view function: where the engine is full, its requests are refused before their body is parsed."""
    setattr(view, _MARK, True)
    return view


def looked_at_early(look: Callable[[], None]) -> Callable[[View], View]:
    """Mark a view function: `look` may refuse its requests before their body is parsed."""

    def mark(view: View) -> View:
        setattr(view, _LOOK, look)
        return view

    return mark


def register(app: OpenAPI, backend: Backend) -> None:
    """Refuse early what would be refused anyway. A request is let in by the service, see Engine.admit."""

    @app.before_request
    def look_early() -> None:
        view = app.view_functions.get(request.endpoint or "")
        look = getattr(view, _LOOK, None)
        if look and request.method != "OPTIONS":  # which Flask answers itself, with the same view function named
            look()
        most = request.max_content_length
        if most is not None and (request.content_length or 0) > most:
            return  # a 413, room or not: nobody should try that again
        if state.is_behind:
            return  # it takes no place that another could have
        if hasattr(view, _MARK):
            backend.service.engine.check_room()


def terms(backend: Backend, *, detail: bool = False) -> Terms:
    """The terms of the request in hand; `detail`: it asks for that.

    `no-store`: remembered answers are neither read nor kept; `no-cache`: computed anew and kept.

    Raises:
        InvalidInput: the time limit is not a positive integer.
    """
    wanted = request.cache_control
    store = not wanted.no_store
    read = store and not wanted.no_cache and wanted.max_age != 0
    cache = CacheUse(read=read, store=store)
    return Terms(
        _timeout_s(request.headers[TIMEOUT_HEADER]) if TIMEOUT_HEADER in request.headers else None,
        state.caller,
        backend.disconnects.watch,
        cache,
        weighs_labels=detail,
        answers=state.answers,
        behind=state.is_behind,
        priority=state.priority,
    )


def priority(allowed: Container[str]) -> int:
    """The priority that the header of the request in hand asks for, 0 to 9. Callers in `allowed` may raise it above 0.

    Raises:
        InvalidInput: it is none. PriorityForbidden: the caller may not.
    """
    given = request.headers[PRIORITY_HEADER]
    if not _DIGIT.fullmatch(given.strip()):
        raise InvalidInput(said("priority_form", header=PRIORITY_HEADER), param=PRIORITY_HEADER)
    asked = int(given)
    if asked and state.caller not in allowed:
        raise PriorityForbidden()
    return asked


def tell_cache(response: Response, answers: Iterable[Answer]) -> Response:
    """Say in X-Cache whether the whole answer was remembered; nothing if a part of it could not have been."""
    found = {answer.cache for answer in answers}
    if None not in found:
        response.headers[CACHE_HEADER] = "HIT" if found == {"HIT"} else "MISS"
    return response


def _timeout_s(given: str) -> float:
    """The client's own limit, in seconds."""
    if not _MILLISECONDS.fullmatch(given.strip()):
        raise InvalidInput(said("timeout_form", timeout_header=TIMEOUT_HEADER), param=TIMEOUT_HEADER)
    return int(given) / 1000
