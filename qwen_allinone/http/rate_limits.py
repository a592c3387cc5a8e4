"""Limits for each caller: requests are counted when they come, generated tokens when they are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flask import Response, current_app, request
from flask_openapi import OpenAPI

from qwen_allinone.access import RateCounters
from qwen_allinone.errors import RateLimited
from qwen_allinone.http.request_state import Standing, state
from qwen_allinone.service import Answer
from qwen_allinone.wording import said

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


class RateLimits:
    """Counts what a request takes and refuses what is too much."""

    def __init__(self, quota: Quota, windows: RateCounters) -> None:
        self._quota = quota
        self._windows = windows

    def admit(self, caller: str) -> None:
        """Count this request of `caller`; raises RateLimited if a limit is used up."""
        state.counted_as = caller
        if self._quota.requests:
            standing = self._count("requests", self._quota.requests, 1)
            if standing.window.used > standing.limit:
                raise RateLimited(said("requests_a_minute", limit=standing.limit), retry_after=standing.resets_in_s)
        if self._quota.tokens and request.method not in _READING:
            standing = self._count("tokens", self._quota.tokens, 0)
            if not standing.remaining:
                message = said("tokens_a_minute", limit=standing.limit)
                raise RateLimited(message, retry_after=standing.resets_in_s)

    def charge(self, tokens: int) -> None:
        """Count tokens generated for the caller who was admitted."""
        if tokens and self._quota.tokens and state.counted_as:
            self._count("tokens", self._quota.tokens, tokens)

    def _count(self, what: str, limit: int, amount: int) -> Standing:
        standing = Standing(limit, self._windows.add(f"{what}:{state.counted_as}", amount))
        state.standings[what] = standing
        return standing


def register(app: OpenAPI, quota: Quota, windows: RateCounters) -> RateLimits | None:
    """Have answers charged and their headers written; None where nothing is limited."""
    if not quota:
        return None
    limits = app.extensions[_EXTENSION] = RateLimits(quota, windows)

    @app.after_request
    def settle(response: Response) -> Response:
        if not response.is_streamed:
            charge_answers(state.answers)
        if standings := state.standings:
            nearest = min(standings.values(), key=lambda standing: standing.remaining / standing.limit)
            response.headers["X-RateLimit-Limit"] = str(nearest.limit)
            response.headers["X-RateLimit-Remaining"] = str(nearest.remaining)
            response.headers["X-RateLimit-Reset"] = str(nearest.resets_in_s)
        return response

    return limits


def charge_answers(answers: Sequence[Answer]) -> None:
    """Charge what `answers` generated, the unfinished ones too, to the caller of this request.

    Answers that are not streamed are charged when they leave; a stream is at its end, within its request's context.
    """
    limits: RateLimits | None = current_app.extensions.get(_EXTENSION)
    if limits is not None:
        limits.charge(sum([len(answer.result.ids) for answer in answers]))
