"""Asks a label task about many rows at once: the engine in this process, or a running service."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar
from urllib.parse import SplitResult, urlsplit

from qwen_allinone.cli.figures import Judged
from qwen_allinone.cli.labelled_rows import Row
from qwen_allinone.errors import DataFileError, QaioError, ServerBusy
from qwen_allinone.service import Service
from qwen_allinone.settings import Settings

_PATIENCE_S = 600.0  # for a service that is full
_TIMEOUT_S = 300.0
_FULL = (429, 503)

T = TypeVar("T")


@dataclass(frozen=True)
class AnsweredRow:
    """A row and its answer. `plain`: the probabilities before the temperature; `problem`: why there is no answer."""

    row: Row
    answer: str = ""
    probabilities: tuple[float, ...] = ()
    plain: tuple[float, ...] = ()
    seconds: float = 0.0
    problem: str = ""

    @property
    def judged(self) -> Judged:
        """As the figures need it."""
        return Judged(self.row.label, self.answer, self.probabilities)


Ask = Callable[[Row], AnsweredRow]


def patiently(ask: Callable[[], T]) -> T:
    """Ask the service in this process, and again while it is full: after ten minutes ServerBusy gets through."""
    gives_up = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return ask()
        except ServerBusy as error:
            if time.monotonic() > gives_up:
                raise
            time.sleep(min(error.retry_after or 1, 1))


def most_at_once(settings: Settings) -> int:
    """As many as fill the slots, with as many again to follow at once, if the service takes so many."""
    return min(2 * settings.slots, settings.slots + settings.max_waiting)


def ask_all(ask: Ask, rows: Sequence[Row], at_once: int) -> Iterator[AnsweredRow]:
    """Ask about all rows, `at_once` of them at a time; yields in their order."""
    with ThreadPoolExecutor(at_once) as pool:
        try:
            yield from pool.map(ask, rows)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def in_process(service: Service, task: str) -> Ask:
    """Asks the service in this process. Nothing is taken from the cache."""

    def ask_once(row: Row) -> AnsweredRow:
        began = time.perf_counter()
        answer = service.run(task, row.inputs)
        seconds = time.perf_counter() - began
        shares = tuple((answer.probabilities or {}).values())
        return AnsweredRow(row, str(answer.label), shares, service.raw_probabilities(answer), seconds)

    def ask(row: Row) -> AnsweredRow:
        try:
            return patiently(lambda: ask_once(row))
        except QaioError as error:
            return AnsweredRow(row, problem=str(error))

    return ask


def over_http(url: str, task: str, labels: Sequence[str], key: str | None = None) -> Ask:
    """Asks a running service; waits where it is full. Its cache is passed over, so that times are times.

    Raises:
        DataFileError: `url` is no web address.
    """
    parts = _web_address(url)
    post = partial(_post, parts, f"{parts.path.rstrip('/')}/v1/tasks/{task}", key)

    def ask(row: Row) -> AnsweredRow:
        gives_up = time.monotonic() + _PATIENCE_S
        while True:
            began = time.perf_counter()
            try:
                status, after, raw = post({**row.inputs, "detail": True})
            except (OSError, http.client.HTTPException) as error:
                return AnsweredRow(row, problem=f"{type(error).__name__}: {error}")
            seconds = time.perf_counter() - began
            if status not in _FULL or not after.isdecimal() or time.monotonic() + int(after) > gives_up:
                return _read(row, status, raw, labels, seconds)
            time.sleep(int(after))

    return ask


def _web_address(url: str) -> SplitResult:
    """No message quotes it: it may hold a password."""
    with suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return parts
    raise DataFileError("--url: write it as http://HOST:PORT")


def _post(parts: SplitResult, path: str, key: str | None, body: Mapping[str, object]) -> tuple[int, str, bytes]:
    """Status, Retry-After and body of the answer."""
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    headers |= {"Authorization": f"Bearer {key}"} if key else {}
    connection = kind(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)
    try:
        connection.request("POST", path, json.dumps(body).encode(), headers)
        response = connection.getresponse()
        return response.status, response.headers.get("Retry-After", ""), response.read()
    finally:
        connection.close()


def _read(row: Row, status: int, raw: bytes, labels: Sequence[str], seconds: float) -> AnsweredRow:
    if status != 200:
        return AnsweredRow(row, problem=f"{status}: {raw[:200].decode(errors='replace')}")
    try:
        body = json.loads(raw)
        probabilities = body["detail"]["probabilities"]
        shares = tuple(float(probabilities[label]) for label in labels)
        return AnsweredRow(row, str(body["label"]), shares, shares, seconds)
    except (ValueError, KeyError, TypeError) as error:
        return AnsweredRow(row, problem=f"the answer is not one of this task ({type(error).__name__}: {error})")
