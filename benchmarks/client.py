"""What measurements over HTTP share: clients that keep their connection, a closed loop of them, percentiles, CSV.

A closed loop: each client sends its next request when its last one is answered, so there are never more requests
under way than clients.
"""

from __future__ import annotations

import csv
import http.client
import json
import math
import queue
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

EVENT_STREAM = "text/event-stream"
# What a server that is full answers, this client's limit included.
FULL = (429, 503)
_SHOWN = 200  # characters of an unexpected body


@dataclass(frozen=True)
class Target:
    """Where requests go and how. Ends the program if `url` is no web address.

    `stream` asks for an event stream; `patient` waits as long as a full server says and sends again, up to
    `timeout_s` seconds for a request, which is also how long a silent server is waited for.
    """

    url: str
    path: str = "/chat"
    stream: bool = False
    patient: bool = False
    timeout_s: float = 300.0

    def __post_init__(self) -> None:
        if self.parts.scheme not in ("http", "https") or not self.parts.hostname:
            sys.exit(f"{self.url}: write it as http://HOST:PORT")

    @property
    def parts(self) -> SplitResult:
        return urlsplit(self.url)

    @property
    def full_path(self) -> str:
        return self.parts.path.rstrip("/") + self.path


@dataclass(frozen=True)
class Answer:
    """What came back for one request; a good answer has no `problem`.

    `status` is 0 if nothing came. `problem` is short enough to count by (a status, the name of an exception),
    `detail` says more. `seconds` run from the first try to the last byte, `first_s` to the first event of an event
    stream. `tokens` is what the server says it generated.
    """

    status: int = 0
    seconds: float = 0.0
    problem: str = ""
    detail: str = ""
    body: dict[str, Any] = field(default_factory=dict)
    content_type: str = ""
    first_s: float | None = None
    tokens: int | None = None
    sent_again: int = 0


class Client:
    """One client: a connection that is kept from request to request. Not for several threads."""

    def __init__(self, target: Target) -> None:
        self._target = target
        parts = target.parts
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname or "", parts.port, timeout=target.timeout_s)
        accept = f"{EVENT_STREAM}, application/json;q=0.5" if target.stream else "application/json"
        self._headers = {"Content-Type": "application/json", "Accept": accept}

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def ask(self, body: dict[str, str]) -> Answer:
        """Send one request; every failure becomes a problem in the answer."""
        began, sent_again = time.perf_counter(), 0
        while True:
            answer, wait_s = self._try(json.dumps(body).encode(), began)
            seconds = time.perf_counter() - began
            if not self._target.patient or wait_s is None or seconds + wait_s > self._target.timeout_s:
                return replace(answer, seconds=seconds, sent_again=sent_again)
            # The server may close a connection that is idle for so long.
            self._connection.close()
            time.sleep(wait_s)
            sent_again += 1

    def _try(self, body: bytes, began: float) -> tuple[Answer, float | None]:
        """One answer, and after how many seconds a full server wants to be asked again."""
        try:
            self._connection.request("POST", self._target.full_path, body, self._headers)
            response = self._connection.getresponse()
            answer = _read(response, began)
        except (OSError, http.client.HTTPException) as problem:
            self._connection.close()
            name = type(problem).__name__
            return Answer(problem=name, detail=f"{name}: {problem}"), None
        after = response.headers.get("Retry-After", "")
        return answer, float(after) if response.status in FULL and after.isdecimal() else None


def closed_loop(target: Target, bodies: Iterable[dict[str, str]], clients: int) -> Iterator[tuple[int, Answer]]:
    """Send all bodies, `clients` at a time; yields (index of the body, its answer) as answers come."""
    todo, taking = enumerate(bodies), threading.Lock()
    results: queue.SimpleQueue[tuple[int, Answer] | BaseException | None] = queue.SimpleQueue()
    stopped = threading.Event()

    def run() -> None:
        try:
            with Client(target) as client:
                while not stopped.is_set():
                    with taking:
                        work = next(todo, None)
                    if work is None:
                        break
                    results.put((work[0], client.ask(work[1])))
            results.put(None)
        except BaseException as problem:
            results.put(problem)

    # Daemons, so that Ctrl-C need not wait for answers.
    threads = [threading.Thread(target=run, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        while clients:
            result = results.get()
            if isinstance(result, BaseException):
                raise result
            if result is None:
                clients -= 1
            else:
                yield result
    finally:
        stopped.set()


def percentile(values: list[float], share: float) -> float:
    """The value that `share` of `values` do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def read_csv(file: Path, *columns: str) -> list[tuple[str, ...]]:
    """These columns of every row of a CSV; raises SystemExit if one is missing."""
    with file.open(encoding="utf-8-sig", newline="") as source:
        reader = csv.DictReader(source, restval="")
        if not set(columns) <= set(reader.fieldnames or ()):
            what = "columns" if len(columns) > 1 else "column"
            sys.exit(f"{file}: needs the {what} {' and '.join(columns)}, has {reader.fieldnames}")
        return [tuple(line[column] for column in columns) for line in reader]


def _read(response: http.client.HTTPResponse, began: float) -> Answer:
    kind = response.headers.get_content_type() if "Content-Type" in response.headers else ""
    if response.status == 200 and kind == EVENT_STREAM:
        return replace(_read_events(response, began), content_type=kind)
    data = response.read()
    body = _json_object(data)
    if response.status != 200:
        shown = body if body is not None else data[:_SHOWN].decode(errors="replace")
        return Answer(response.status, problem=str(response.status), detail=f"{response.status}: {shown}")
    if body is None:
        detail = f"200: no JSON object: {data[:_SHOWN].decode(errors='replace')}"
        return Answer(200, problem="200 but no JSON object", detail=detail, content_type=kind)
    return Answer(200, body=body, content_type=kind, tokens=_tokens(body))


def _read_events(response: http.client.HTTPResponse, began: float) -> Answer:
    """Read an event stream to its end. Comments (`: ping`) are not events: they say nothing of the reply."""
    first_s: float | None = None
    tokens: int | None = None
    failed = ""
    is_error = False
    for line in _lines(response):
        name, _, value = line.partition(b":")
        if not name and not value:
            is_error = False  # a blank line ends an event
        elif name == b"event":
            is_error = value.strip() == b"error"
        elif name == b"data":
            first_s = time.perf_counter() - began if first_s is None else first_s
            body = _json_object(value) or {}
            tokens = _tokens(body) if _tokens(body) is not None else tokens
            if is_error or "error" in body:
                failed = value.decode(errors="replace").strip()[:_SHOWN]
    if failed:
        return Answer(200, problem="200 but an error event", detail=f"200: error event: {failed}", first_s=first_s)
    if first_s is None:
        return Answer(200, problem="200 but no event", detail="200: the event stream held no event")
    return Answer(200, first_s=first_s, tokens=tokens)


def _lines(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """The whole lines of a body as they come. Its own `readline` takes a body that breaks off for a finished one."""
    rest = b""
    while block := response.read1():
        *whole, rest = (rest + block).split(b"\n")
        yield from (line.rstrip(b"\r") for line in whole)


def _json_object(data: bytes) -> dict[str, Any] | None:
    try:
        body = json.loads(data)
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _tokens(body: dict[str, Any]) -> int | None:
    """The tokens generated, where an answer carries OpenAI's `usage`."""
    usage = body.get("usage")
    count = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return count if isinstance(count, int) else None
