"""What a request wants of the answer cache (`Cache-Control`), and whether its answer came from there (`X-Cache`)."""

from __future__ import annotations

from typing import Any

from flask import Response, request

from qwen_allinone.allinone import Answer
from qwen_allinone.caching import CacheUse
from qwen_allinone.http.usage import caller

HEADER = "X-Cache"

# For `openapi_extensions` of a route, and for its answers.
PARAMETER: dict[str, Any] = {
    "name": "Cache-Control",
    "in": "header",
    "required": False,
    "description": "no-store：不查缓存也不写入缓存；no-cache：重新计算并更新缓存",
    "schema": {"type": "string"},
}


def cache_use() -> CacheUse:
    """`no-store`: neither read nor kept; `no-cache`: computed anew and kept. Callers do not share answers."""
    wanted = request.cache_control
    store = not wanted.no_store
    read = store and not wanted.no_cache and wanted.max_age != 0
    return CacheUse(caller() or "", read=read, store=store)


def tell(response: Response, answer: Answer) -> Response:
    """Say in the header where the answer came from; nothing if it could not have been remembered."""
    if answer.cache is not None:
        response.headers[HEADER] = answer.cache
    return response
