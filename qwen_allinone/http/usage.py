"""GET /v1/usage: what each key or token has asked for and used, day by day; and the account that is kept for it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from datetime import date
from itertools import groupby
from typing import Any

from flask import Response, jsonify
from flask_openapi import OpenAPI
from pydantic import BaseModel, ConfigDict, Field

from qwen_allinone.errors import InvalidInput, UsageForbidden, UsageOff
from qwen_allinone.http.error_answers import NestedErrorBody, error_responses
from qwen_allinone.http.request_state import state
from qwen_allinone.state import Counted, Counts, UsageAccounts, UsageLine
from qwen_allinone.telemetry import RequestRecord
from qwen_allinone.telemetry.metrics import FAILED, METHODS
from qwen_allinone.telemetry.records import REMEMBERED, UNFINISHED
from qwen_allinone.wording import said

_MOST_LINES = 20_000


class UsageQuery(BaseModel):
    """Which days, and whose."""

    model_config = ConfigDict(extra="forbid")

    # A text, so that a date is written in one way and a wrong one is told so in the users' language.
    from_: str | None = Field(None, alias="from", description="第一天（UTC），如 2026-01-01；缺省：保存着的最早一天")
    to: str | None = Field(None, description="最后一天（UTC），包括它；缺省：今天")
    key: str | None = Field(None, max_length=1000, description="只看这个密钥（名称）或令牌（jwt: 和它的 sub）的")


class RouteUsage(BaseModel):
    """Requests to one route."""

    requests: int
    failed: int = Field(description="Answered with an error, those too late, cancelled or refused among them")


class TaskUsage(BaseModel):
    """Answers of one task."""

    answers: int
    unfinished: int = Field(description="Given up before they were done; their tokens count as far as they came")
    prompt_tokens: int
    cached_tokens: int = Field(description="Of the prompt tokens, those that did not have to be computed")
    completion_tokens: int


class DayUsage(BaseModel):
    """What one key used on one day."""

    key: str | None = Field(description="null where no keys are asked for")
    day: str = Field(description="UTC")
    requests: int
    failed: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    routes: dict[str, RouteUsage] = Field(description="By method and path")
    tasks: dict[str, TaskUsage] = Field(description="By task; a request may take the answers of several")


class UsageList(BaseModel):
    """By day, and on each day by key; days without requests are left out."""

    from_: str = Field(serialization_alias="from")
    to: str
    data: list[DayUsage]


class UsageMeter:
    """A telemetry `Meter`: keeps account of requests under their callers' names."""

    def __init__(self, accounts: UsageAccounts, *, has_keys: bool) -> None:
        """`has_keys`: a request without a caller is a stranger's, and in nobody's account."""
        self.accounts = accounts
        self._has_keys = has_keys

    def count(self, request: RequestRecord) -> None:
        if request.caller is None and self._has_keys:
            return
        failed = request.status >= FAILED or request.code is not None  # a stream fails after its status
        method = request.method if request.method in METHODS else "other"
        counted: list[Counted] = [("route", f"{method} {request.route}", Counts(1, int(failed)))]
        for answer in request.answers:
            tokens = (answer.prompt_tokens, answer.reused_tokens, answer.generated_tokens)
            of_it = () if answer.cache == REMEMBERED else tokens
            unfinished = int(answer.finish_reason == UNFINISHED)
            counted.append(("task", answer.task, Counts(1, unfinished, *of_it)))
        self.accounts.add(request.caller, counted)

    def close(self) -> None:
        self.accounts.close()


def register(app: OpenAPI, accounts: UsageAccounts | None, admins: Collection[str], *, has_keys: bool) -> None:
    """Add the route. `admins` see what all have used; `accounts`: None where none are kept."""

    @app.get(
        "/v1/usage",
        summary="每个密钥每天的用量",
        responses={200: UsageList, **error_responses(NestedErrorBody, 400, 403, 404, 500, 503)},
    )
    def usage(query: UsageQuery) -> Response:
        if accounts is None:
            raise UsageOff()
        owners = _owners(query.key, admins, has_keys)
        first, last = _days(query, accounts)
        lines = accounts.read(first, last, owners, _MOST_LINES)
        if len(lines) > _MOST_LINES:
            raise InvalidInput(said("usage_too_much"), param="from")
        shown = UsageList(from_=first.isoformat(), to=last.isoformat(), data=list(_by_day(lines)))
        return jsonify(shown.model_dump(by_alias=True))


def _owners(key: str | None, admins: Collection[str], has_keys: bool) -> tuple[str | None, ...] | None:
    """Whose usage is meant, None for everybody's; raises InvalidInput or UsageForbidden."""
    if not has_keys:
        if key is not None:
            raise InvalidInput(said("usage_no_keys"), param="key")
        return (None,)
    if state.caller in admins:
        return None if key is None else (key,)
    if key is not None and key != state.caller:
        raise UsageForbidden()
    return (state.caller,)


def _days(query: UsageQuery, accounts: UsageAccounts) -> tuple[date, date]:
    """The first and the last that are asked for; raises InvalidInput."""
    oldest, today = accounts.days()
    last = today if query.to is None else _date("to", query.to)
    first = min(oldest, last) if query.from_ is None else _date("from", query.from_)
    if first > last:
        raise InvalidInput(said("from_after", last=last), param="from")
    return first, last


def _date(name: str, text: str) -> date:
    with suppress(ValueError):
        day = date.fromisoformat(text)
        if day.isoformat() == text:  # there are other forms of a date, which a store would not find
            return day
    raise InvalidInput(said("date_form", name=name), param=name)


def _by_day(lines: Mapping[UsageLine, Counts]) -> Iterator[DayUsage]:
    def place(line: UsageLine) -> tuple[str, str]:
        return line.day, line.owner or ""

    for _, group in groupby(sorted(lines, key=lambda line: (*place(line), line.kind, line.name)), key=place):
        yield _day({line: lines[line] for line in group})


def _day(lines: Mapping[UsageLine, Counts]) -> DayUsage:
    """Of the lines of one day and owner."""
    routes = {line.name: counts for line, counts in lines.items() if line.kind == "route"}
    tasks = {line.name: counts for line, counts in lines.items() if line.kind == "task"}
    tokens: dict[str, Any] = {
        field: sum(getattr(counts, field) for counts in tasks.values())
        for field in ("prompt_tokens", "cached_tokens", "completion_tokens")
    }
    some = next(iter(lines))
    return DayUsage(
        key=some.owner,
        day=some.day,
        requests=sum(counts.times for counts in routes.values()),
        failed=sum(counts.failed for counts in routes.values()),
        **tokens,
        routes={name: RouteUsage(requests=c.times, failed=c.failed) for name, c in routes.items()},
        tasks={name: _task(counts) for name, counts in tasks.items()},
    )


def _task(counts: Counts) -> TaskUsage:
    return TaskUsage(
        answers=counts.times,
        unfinished=counts.failed,
        prompt_tokens=counts.prompt_tokens,
        cached_tokens=counts.cached_tokens,
        completion_tokens=counts.completion_tokens,
    )
