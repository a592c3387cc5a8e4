"""Requests that Gunicorn refuses before the app sees them, answered in the shape of the app's own errors."""

from __future__ import annotations

import json
import traceback
import uuid
from contextlib import suppress
from http import HTTPStatus
from typing import Any, TypeVar

from gunicorn.http import errors
from gunicorn.workers.base import Worker

from qwen_allinone.error_body import error_body
from qwen_allinone.wording import Language, in_language, of_header, said

_STATUSES = {
    errors.LimitRequestLine: (414, "uri_too_long", said("uri_too_long")),
    errors.LimitRequestHeaders: (431, "headers_too_large", said("headers_too_large")),
    errors.ExpectationFailed: (417, "expectation_failed", said("expectation_failed")),
    errors.UnsupportedTransferCoding: (501, "not_implemented", said("transfer_coding")),
    errors.ForbiddenProxyRequest: (403, "forbidden", said("proxy_protocol")),
    errors.ConfigurationProblem: (500, "internal_error", said("internal_error")),
}
_BAD = (400, "bad_request", said("bad_request"))
_OURS = (errors.InvalidResponseHeader, errors.InvalidResponseHeaderName)
_LONGEST_NAME = 64
T = TypeVar("T")


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
        message = said("header_name", hdr=_shown(error.hdr))
    body = json.dumps(
        error_body(_path(error), status, in_language(message, _language(error)), code), ensure_ascii=False
    ).encode()
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
    """The path in the request line, where that could be read."""
    return _parsed(error, "path", str) or ""


def _language(error: BaseException) -> Language | None:
    """What the request prefers, where its headers could be read."""
    headers = _parsed(error, "headers", list) or []
    return of_header(next((value for name, value in headers if name == "ACCEPT-LANGUAGE"), ""))


def _parsed(error: BaseException, part: str, kind: type[T]) -> T | None:
    """A part of the half-parsed request, which is in the error's frames only."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        found = getattr(frame.f_locals.get("self"), part, None)
        if isinstance(found, kind):
            return found
    return None
