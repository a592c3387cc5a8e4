"""Large bodies that come to nothing: who sends one after the other rests between them while others are about."""

from __future__ import annotations

from flask import Response, request
from flask_openapi import OpenAPI

from qwen_allinone.engine import Pace
from qwen_allinone.http.request_state import state

# Reading and refusing so many bytes takes the interpreter no longer than any request does.
_LARGE_BYTES = 16_384
# The request was at fault, not the moment: 400 bad, 413 too large, 415 of another kind, 422 none of ours.
_FOR_NOTHING = (400, 413, 415, 422)


def register(app: OpenAPI, pace: Pace) -> None:
    """Have callers of `app` rest as `pace` says, before a large body is read."""

    @app.before_request
    def rest() -> None:
        if _is_large():
            state.work_began = pace.began()
            pace.rest(state.caller)

    @app.after_request
    def note(response: Response) -> Response:
        if state.work_began is not None and response.status_code in _FOR_NOTHING:
            pace.worked(state.caller, pace.since(state.work_began))
        return response


def _is_large() -> bool:
    """By what it says of itself; of a chunked body nothing is known before it is read."""
    length = request.content_length
    return length > _LARGE_BYTES if length is not None else "chunked" in request.headers.get("Transfer-Encoding", "")
