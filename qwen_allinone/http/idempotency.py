"""The header Idempotency-Key: a request that is sent again, as after a lost connection, is answered once.

An answer is kept before it leaves. Errors are not: whoever was refused may ask again under the same key.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from dataclasses import dataclass
from functools import partial
from typing import Any

from flask import Response, after_this_request, request
from flask_openapi import OpenAPI

from qwen_allinone.errors import InvalidInput, OnceUnavailable
from qwen_allinone.http.error_answers import ErrorBody, NestedErrorBody
from qwen_allinone.http.request_state import state
from qwen_allinone.state import OnceStore
from qwen_allinone.state.cache import key_of
from qwen_allinone.state.conversations import lease_for
from qwen_allinone.state.lease import Lease
from qwen_allinone.wording import said

log = logging.getLogger(__name__)

HEADER = "Idempotency-Key"
REPLAYED = "Idempotent-Replayed"
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_PARAMETER: dict[str, Any] = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "1 到 255 个可见 ASCII 字符：再发同样的请求得到同一个回答，不会再算一次；不能用于流式请求",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}


@dataclass(frozen=True)
class Once:
    """`longest_s`: how long a request may take."""

    store: OnceStore
    longest_s: float


def register(app: OpenAPI, once: Once) -> None:
    """To be called after the guards are: a key is its caller's own."""
    store = once.store

    @app.before_request
    def look() -> Response | None:
        """What was answered before, or the key is held from now on."""
        given = request.headers.get(HEADER)
        if given is None or request.method != "POST" or request.routing_exception:
            return None
        if request.mimetype == "multipart/form-data":  # it would have to be read whole to be compared
            raise InvalidInput(said("once_upload", header=HEADER), param=HEADER)
        if not _KEY.fullmatch(given):
            raise InvalidInput(said("once_form", header=HEADER), param=HEADER)
        key, lease = key_of(state.caller or "", given), lease_for(None, once.longest_s)
        kept = store.begin(key, state.caller, _digest(), lease)
        if kept is None:
            state.key, state.has_own_key = f"{key}/{_digest()}", True
            after_this_request(partial(settle, key=key, lease=lease))
            return None
        return _load(kept)

    def settle(response: Response, key: str, lease: Lease) -> Response:
        """Keep the answer, or let go of the key."""
        try:
            if 200 <= response.status_code < 300:
                state.tell_alerts()  # before: whoever asks again gets what is kept, and nothing is told of that
                store.keep(key, state.caller, _dump(response), lease)
            else:
                store.release(key, state.caller, lease)
        except OnceUnavailable:
            log.warning("an answer could not be kept under its Idempotency-Key; sent again it is computed again")
        return response


def refuse_stream() -> None:
    """Raises InvalidInput where the request in hand has a key: a stream is not kept."""
    if request.method == "POST" and HEADER in request.headers:
        raise InvalidInput(said("once_stream", header=HEADER), param=HEADER)


def document(spec: dict[str, Any]) -> dict[str, Any]:
    """Add the header to the OpenAPI document, and what it may be answered with."""
    for path, operations in spec["paths"].items():
        if operation := operations.get("post"):
            others = [given for given in operation.get("parameters", []) if given["name"] != HEADER]
            operation["parameters"] = [*others, _PARAMETER]
            model = NestedErrorBody if path.startswith("/v1/") else ErrorBody
            schema = {"$ref": f"#/components/schemas/{model.model_config['title']}"}
            answer = {"description": "Conflict", "content": {"application/json": {"schema": schema}}}
            operation["responses"].setdefault("409", answer)
    return spec


def _digest() -> str:
    """Of all that makes a request what it is."""
    body = request.read_body()  # type: ignore[attr-defined]
    digest = hashlib.sha256(f"{request.full_path}\0{request.mimetype}\0".encode("utf-8", "surrogateescape"))
    digest.update(body)
    return digest.hexdigest()


def _dump(response: Response) -> bytes:
    """As it left the route: what other hooks add is of the request in hand."""
    head = {"status": response.status_code, "headers": list(response.headers)}
    return json.dumps(head).encode() + b"\n" + response.get_data()


def _load(kept: bytes) -> Response:
    head, _, body = kept.partition(b"\n")
    told = json.loads(head)
    response = Response(body, told["status"], told["headers"])
    response.headers[REPLAYED] = "true"
    return response
