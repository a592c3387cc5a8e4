"""The JSON of an error answer: nested under /v1, as OpenAI's clients read it, flat elsewhere."""

from __future__ import annotations

from typing import Any


def error_body(path: str, status: int, message: str, code: str, param: str | None = None) -> dict[str, Any]:
    """What a client that asked for `path` is told."""
    if path == "/v1" or path.startswith("/v1/"):
        kind = "server_error" if status >= 500 else "invalid_request_error"
        return {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return {"error": message, "code": code}
