"""Asks a service that may be full, and asks again: one in this process, or a running one over HTTP."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

from qwen_allinone.errors import DataFileError, ServerBusy
from qwen_allinone.wording import said

_PATIENCE_S = 600.0
_TIMEOUT_S = 300.0
_FULL = (429, 503)

T = TypeVar("T")


def patiently(ask: Callable[[], T]) -> T:
    """Ask the service in this process, and again while it is full: after ten minutes ServerBusy gets through."""
    gives_up = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return ask()
        except ServerBusy as error:
            if time.monotonic() > gives_up:
                raise
            time.sleep(min(error.retry_after or 1, 1))


@dataclass(frozen=True)
class Response:
    """What a service answered, and how long it took for it; `model` is what it calls its model."""

    status: int
    body: bytes
    model: str
    seconds: float


class RemoteService:
    """A running service. Thread-safe."""

    def __init__(self, url: str, key: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        """Raises DataFileError: `url` is no web address. No message quotes it: it may hold a password."""
        with suppress(ValueError):
            self._parts = parts = urlsplit(url)
            if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
                self._path = parts.path.rstrip("/")
                self._headers = {"Content-Type": "application/json", **(headers or {})}
                self._headers |= {"Authorization": f"Bearer {key}"} if key else {}
                return
        raise DataFileError(said("url_form"))

    def ask(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Response:
        """Ask, and again while it says that it is full and when to come back: its refusal after ten minutes.

        Raises OSError and HTTPException: there is no answer.
        """
        gives_up = time.monotonic() + _PATIENCE_S
        while True:
            response, after = self._ask_once(method, path, body)
            if response.status not in _FULL or not after.isdecimal() or time.monotonic() + int(after) > gives_up:
                return response
            time.sleep(int(after))

    def _ask_once(self, method: str, path: str, body: Mapping[str, object] | None) -> tuple[Response, str]:
        """The answer, and its Retry-After."""
        began = time.perf_counter()
        secure = self._parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(self._parts.hostname or "", self._parts.port, timeout=_TIMEOUT_S)
        try:
            connection.request(
                method, self._path + path, None if body is None else json.dumps(body).encode(), self._headers
            )
            answer = connection.getresponse()
            raw, model = answer.read(), answer.headers.get("X-Model", "")
            response = Response(answer.status, raw, model, time.perf_counter() - began)
            return response, answer.headers.get("Retry-After", "")
        finally:
            connection.close()
