"""Before any route: whose request it is, whether it is within its limits, whether it may come in, and before whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from flask import request
from flask_openapi import OpenAPI

from qwen_allinone.access import Credentials, RateCounters, client_address, counted_as
from qwen_allinone.http import auth, batch_calls, browsers, rate_limits, request_terms
from qwen_allinone.http.browsers import Browsers
from qwen_allinone.http.error_answers import ErrorBody, NestedErrorBody
from qwen_allinone.http.rate_limits import Quota
from qwen_allinone.http.request_state import state

# Endpoints that a supervisor or load balancer asks without a key and as often as it likes.
OPEN = frozenset({"livez", "readyz", "health"})
_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "API key, or JSON web token"},
    "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


@dataclass(frozen=True)
class Guards:
    """What stands before the routes."""

    credentials: Credentials
    trusted_proxies: Sequence[IPv4Network | IPv6Network]
    quota: Quota
    windows: RateCounters = field(repr=False)
    browsers: Browsers = field(default_factory=Browsers)
    priority_keys: frozenset[str] = frozenset()  # callers that may raise the priority of their requests


def register(app: OpenAPI, guards: Guards) -> None:
    """Guard every request to `app`, those to paths and methods that do not exist too."""
    browsers.register(app, guards.browsers)
    limited = rate_limits.register(app, guards.quota, guards.windows)

    @app.before_request
    def guard() -> None:
        line: batch_calls.LineCall | None = request.environ.get(batch_calls.LINE)
        if line:
            # Asked by this process itself: its file was let in with the key of its owner, whose limits a batch has.
            state.caller, state.is_behind, state.key = line.owner, True, line.key
            return
        if guards.credentials.required:
            auth.identify(guards.credentials)
        forwarded_for = request.headers.get("X-Forwarded-For", "")
        state.address = client_address(request.remote_addr or "", forwarded_for, guards.trusted_proxies)
        if request.endpoint in OPEN:
            return
        guards.browsers.refuse_wrong_host()
        if "Origin" in request.headers:
            guards.browsers.refuse_strange_upload()
        if limited is not None:
            # A stranger counts by address, so guessing keys is limited, and does not use up a key's share.
            limited.admit(state.caller or f"address:{counted_as(state.address)}")
        if state.is_stranger:
            auth.refuse_stranger()
        if request_terms.PRIORITY_HEADER in request.headers:
            state.priority = request_terms.priority(guards.priority_keys)


def document(spec: dict[str, Any], guards: Guards) -> dict[str, Any]:
    """Add to the OpenAPI document what the guards ask of every guarded operation, and what they answer."""
    guarded = [
        (path, operation)
        for path, operations in spec["paths"].items()
        for operation in operations.values()
        if path.removeprefix("/") not in OPEN
    ]
    if guards.credentials.required:
        spec["components"]["securitySchemes"] = _SCHEMES
    for path, operation in guarded:
        if guards.credentials.required:
            operation["security"] = [{name: []} for name in _SCHEMES]
            operation["responses"]["401"] = _response(path, HTTPStatus.UNAUTHORIZED)
        if guards.quota:
            operation["responses"]["429"] = _response(path, HTTPStatus.TOO_MANY_REQUESTS)
    return spec


def _response(path: str, status: HTTPStatus) -> dict[str, Any]:
    model = NestedErrorBody if path.startswith("/v1/") else ErrorBody
    schema = {"$ref": f"#/components/schemas/{model.model_config['title']}"}
    return {"description": status.phrase, "content": {"application/json": {"schema": schema}}}
