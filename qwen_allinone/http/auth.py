"""Whose request it is: the key or token in its headers, looked up."""

from __future__ import annotations

from flask import request

from qwen_allinone.access import Credentials
from qwen_allinone.errors import Unauthorized
from qwen_allinone.http.request_state import state

_SCHEME = "bearer "


def identify(credentials: Credentials) -> None:
    """Where a key or token is asked for: put the caller's name into the request's state, or mark it a stranger's."""
    secret = presented_credential()
    state.caller = credentials.holder(secret) if secret else None
    state.is_stranger = state.caller is None


def refuse_stranger() -> None:
    """Raises Unauthorized, for a request that needed a key."""
    raise Unauthorized(given=bool(presented_credential()))


def presented_credential() -> str:
    """`Authorization: Bearer X` if there is one, else `X-API-Key: X`; other schemes may be a proxy's own."""
    authorization = request.headers.get("Authorization", "")
    if authorization[: len(_SCHEME)].lower() == _SCHEME:
        return authorization[len(_SCHEME) :].strip()
    return request.headers.get("X-API-Key", "").strip()
