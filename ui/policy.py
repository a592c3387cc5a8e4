"""What a browser may do with the page: ask from the page itself, and load nothing from anywhere else, whatever a file
or the model brings along."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ui.visitors import refusal

# Gradio builds its page with inline scripts and compiled templates; data: and blob: are its icons and downloads.
_POLICY = "; ".join(
    (
        "default-src 'self' data: blob:",
        "script-src 'self' blob: 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'self'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}


class _Policy:
    """ASGI middleware that turns foreign pages away and adds the headers to every answer."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str] | None) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif why := refusal(Headers(scope=scope), self._hosts):
            await PlainTextResponse(why, 403)(scope, receive, with_headers)
        else:
            await self._app(scope, receive, with_headers)


def middleware(hosts: Sequence[str] | None) -> list[Middleware]:
    """For the application that Gradio makes; it answers under `hosts`, see `refusal`."""
    return [Middleware(_Policy, hosts=hosts)]
