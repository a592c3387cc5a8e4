"""Requests that Gunicorn refuses before the app sees them, answered in the shape of the app's own errors."""

from __future__ import annotations

import json
import traceback
import uuid
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from gunicorn.http import errors
from gunicorn.workers.base import Worker

from qwen_allinone.error_body import error_body

_STATUSES = {
    errors.LimitRequestLine: (414, "uri_too_long", "请求地址太长，请缩短到 4000 字节以内"),
    errors.LimitRequestHeaders: (431, "headers_too_large", "请求头太大或太多，每个最多 8000 字节，最多 50 个"),
    errors.ExpectationFailed: (417, "expectation_failed", "不支持请求头 Expect 的这个值"),
    errors.UnsupportedTransferCoding: (501, "not_implemented", "不支持这种 Transfer-Encoding"),
    errors.ForbiddenProxyRequest: (403, "forbidden", "不接受来自这个地址的 PROXY 协议"),
    errors.ConfigurationProblem: (500, "internal_error", "服务内部出错，请稍后再试"),
}
_BAD = (400, "bad_request", "请求不符合 HTTP 规范，请检查请求行和请求头")
_OURS = (errors.InvalidResponseHeader, errors.InvalidResponseHeaderName)
_LONGEST_NAME = 64


class RefusesInJson(Worker):  # type: ignore[misc]  # gunicorn has no types
    """What a worker class inherits from, before the Gunicorn worker that it is."""

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer a request that could not be parsed; all else is the app's fault, and Gunicorn's to answer."""
        at_fault = isinstance(exc, errors.ParseException) and not isinstance(exc, _OURS)
        if not at_fault:
            super().handle_error(req, client, addr, exc)
            return
        self.log.warning("Invalid request from ip=%s: %s", addr[0] if addr else "", exc)
        with suppress(OSError):  # gone already
            client.sendall(answer_to(exc))


def answer_to(error: BaseException) -> bytes:
    """The whole HTTP answer to a request that could not be parsed."""
    status, code, message = next((_STATUSES[kind] for kind in _STATUSES if isinstance(error, kind)), _BAD)
    if isinstance(error, errors.InvalidHeaderName):
        message = f"不接受名为 {_shown(error.hdr)} 的请求头：名称只能由字母、数字和连字符组成"
    body = json.dumps(error_body(_path(error), status, message, code), ensure_ascii=False).encode()
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        "Content-Type: application/json; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\n"
        f"X-Request-Id: {uuid.uuid4().hex}\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        "Cache-Control: no-store\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode("ascii") + body


def _shown(name: Any) -> str:
    text = name.decode("latin-1") if isinstance(name, bytes) else str(name)
    return text[:_LONGEST_NAME].encode("ascii", "replace").decode()


def _path(error: BaseException) -> str:
    """The path in the request line, where that could be read: the half-parsed request is in the error's frames only."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        path = getattr(frame.f_locals.get("self"), "path", None)
        if isinstance(path, str):
            return path
    return ""
