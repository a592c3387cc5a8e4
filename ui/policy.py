"""What a browser may do with the page: ask from the page itself, and load nothing from anywhere else, whatever a file
or the model brings along."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ui.uploads import bytes_in
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
_FULL = "这个页面暂时收不下更多文件，请一小时后再试；管理者可以调大 QWEN_UI_UPLOADS_MB"


class _Policy:
    """ASGI middleware that turns foreign pages and too many files away, and adds the headers to every answer."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str] | None, files: Path, most_mb: int) -> None:
        self._app = app
        self._hosts = hosts
        self._files, self._most_mb = files, most_mb

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif why := refusal(Headers(scope=scope), self._hosts):
            await PlainTextResponse(why, 403)(scope, receive, with_headers)
        elif scope["path"].endswith("/upload") and await self._is_full():
            await PlainTextResponse(_FULL, 507)(scope, receive, with_headers)
        else:
            await self._app(scope, receive, with_headers)

    async def _is_full(self) -> bool:
        return await asyncio.to_thread(bytes_in, self._files) >= self._most_mb * 1_000_000


def middleware(hosts: Sequence[str] | None, files: Path, most_mb: int) -> list[Middleware]:
    """For the application that Gradio makes: it answers under `hosts`, see `refusal`, and takes no further file once
    those in `files` have reached `most_mb`."""
    return [Middleware(_Policy, hosts=hosts, files=files, most_mb=most_mb)]
