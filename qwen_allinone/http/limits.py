"""Limits for each caller: requests are counted when they come, generated tokens when they are known."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from flask import Response, current_app, g, request
from flask_openapi import OpenAPI

from qwen_allinone.access import RateCounters, Window
from qwen_allinone.errors import RateLimited
from qwen_allinone.http.usage import noted

WINDOW_S = 60.0
_EXTENSION = "qaio_limits"
_READING = ("GET", "HEAD", "OPTIONS")  # methods that generate nothing


@dataclass(frozen=True)
class Quota:
    """What a caller may have in a window; 0 is without limit."""

    requests: int = 0
    tokens: int = 0

    def __bool__(self) -> bool:
        return bool(self.requests or self.tokens)


@dataclass(frozen=True)
class Standing:
    """How a caller stands with one limit."""

    limit: int
    window: Window

    @property
    def remaining(self) -> int:
        return max(0, self.limit - self.window.used)

    @property
    def resets_in_s(self) -> int:
        return max(1, ceil(self.window.resets_in_s))


class Limits:
    """Counts what a request takes and refuses what is too much. The request's standings are kept in `g.standings`."""

    def __init__(self, quota: Quota, windows: RateCounters) -> None:
        self._quota = quota
        self._windows = windows

    def admit(self, caller: str) -> None:
        """Count this request of `caller`; raises RateLimited if a limit is used up."""
        g.limited_as = caller
        g.standings = {}
        if self._quota.requests:
            standing = self._count("requests", self._quota.requests, 1)
            if standing.window.used > standing.limit:
                raise RateLimited(f"请求太频繁：每分钟最多 {standing.limit} 次", retry_after=standing.resets_in_s)
        if self._quota.tokens and request.method not in _READING:
            standing = self._count("tokens", self._quota.tokens, 0)
            if not standing.remaining:
                message = f"生成的文字太多：每分钟最多 {standing.limit} 个 token"
                raise RateLimited(message, retry_after=standing.resets_in_s)

    def charge(self, tokens: int) -> None:
        """Count tokens generated for the caller who was admitted."""
        if tokens and self._quota.tokens and "limited_as" in g:
            self._count("tokens", self._quota.tokens, tokens)

    def _count(self, what: str, limit: int, amount: int) -> Standing:
        standing = Standing(limit, self._windows.add(f"{what}:{g.limited_as}", amount))
        g.standings[what] = standing
        return standing


def register(app: OpenAPI, quota: Quota, windows: RateCounters) -> Limits | None:
    """Have answers charged and their headers written; None where nothing is limited."""
    if not quota:
        return None
    limits = app.extensions[_EXTENSION] = Limits(quota, windows)

    @app.after_request
    def settle(response: Response) -> Response:
        if not response.is_streamed:
            limits.charge(sum(len(answer.result.ids) for answer in noted()))
        if standings := g.get("standings"):
            nearest = min(standings.values(), key=lambda standing: standing.remaining / standing.limit)
            response.headers["X-RateLimit-Limit"] = str(nearest.limit)
            response.headers["X-RateLimit-Remaining"] = str(nearest.remaining)
            response.headers["X-RateLimit-Reset"] = str(nearest.resets_in_s)
        return response

    return limits


def charge(tokens: int) -> None:
    """Charge generated tokens to the caller of this request. Whole answers are charged by themselves when they leave
    (see `usage.note`); a stream calls this at its end, within its request's context."""
    limits: Limits | None = current_app.extensions.get(_EXTENSION)
    if limits is not None:
        limits.charge(tokens)
