"""Large bodies that come to nothing: who sends one after the other rests between them while others are about."""

from __future__ import annotations

from flask import Response, after_this_request, request
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
        # Of a chunked body nothing is known before it is read.
        if (request.content_length or 0) <= _LARGE_BYTES and "Transfer-Encoding" not in request.headers:
            return
        caller, began = state.caller, pace.began()
        pace.rest(caller)

        @after_this_request
        def note(response: Response) -> Response:
            if response.status_code in _FOR_NOTHING:
                pace.worked(caller, pace.since(began))
            return response
