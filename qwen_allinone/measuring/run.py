"""Asks a label task about many rows at once: the engine in this process, or a running service."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

from qwen_allinone.errors import DataFileError, QaioError
from qwen_allinone.measuring.labelled import Row
from qwen_allinone.service import AllInOne

_PATIENCE_S = 600.0  # for a service that is full
_TIMEOUT_S = 300.0
_FULL = (429, 503)


@dataclass(frozen=True)
class Asked:
    """What became of a row. `plain` are the probabilities before the temperature; `problem` is why there are none."""

    row: Row
    answer: str = ""
    probabilities: tuple[float, ...] = ()
    plain: tuple[float, ...] = ()
    seconds: float = 0.0
    problem: str = ""


Ask = Callable[[Row], Asked]


def ask_all(ask: Ask, rows: Sequence[Row], at_once: int) -> Iterator[Asked]:
    """Ask about all rows, `at_once` of them at a time; yields in their order."""
    with ThreadPoolExecutor(at_once) as pool:
        try:
            yield from pool.map(ask, rows)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def in_process(service: AllInOne, task: str) -> Ask:
    """Asks the service in this process. Nothing is taken from the cache."""

    def ask(row: Row) -> Asked:
        began = time.perf_counter()
        try:
            answer = service.run(task, row.inputs)
        except QaioError as error:
            return Asked(row, problem=str(error))
        seconds = time.perf_counter() - began
        shares = tuple((answer.probabilities or {}).values())
        return Asked(row, str(answer.label), shares, service.raw_probabilities(answer), seconds)

    return ask


def over_http(url: str, task: str, labels: Sequence[str], key: str | None = None) -> Ask:
    """Asks a running service; waits where it is full. Its cache is passed over, so that times are times.

    Raises:
        DataFileError: `url` is no web address.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise DataFileError(f"{url}: write it as http://HOST:PORT")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    headers |= {"Authorization": f"Bearer {key}"} if key else {}
    path = f"{parts.path.rstrip('/')}/v1/tasks/{task}"

    def post(body: Mapping[str, object]) -> tuple[int, str, bytes]:
        connection = kind(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)
        try:
            connection.request("POST", path, json.dumps(body).encode(), headers)
            response = connection.getresponse()
            return response.status, response.headers.get("Retry-After", ""), response.read()
        finally:
            connection.close()

    def ask(row: Row) -> Asked:
        gives_up = time.monotonic() + _PATIENCE_S
        while True:
            began = time.perf_counter()
            try:
                status, after, raw = post({**row.inputs, "detail": True})
            except (OSError, http.client.HTTPException) as error:
                return Asked(row, problem=f"{type(error).__name__}: {error}")
            seconds = time.perf_counter() - began
            if status not in _FULL or not after.isdecimal() or time.monotonic() + int(after) > gives_up:
                return _read(row, status, raw, labels, seconds)
            time.sleep(int(after))

    return ask


def _read(row: Row, status: int, raw: bytes, labels: Sequence[str], seconds: float) -> Asked:
    if status != 200:
        return Asked(row, problem=f"{status}: {raw[:200].decode(errors='replace')}")
    try:
        body = json.loads(raw)
        probabilities = body["detail"]["probabilities"]
        shares = tuple(float(probabilities[label]) for label in labels)
        return Asked(row, str(body["label"]), shares, shares, seconds)
    except (ValueError, KeyError, TypeError) as error:
        return Asked(row, problem=f"the answer is not one of this task ({type(error).__name__}: {error})")
