"""Asks a label task about many rows at once: the engine in this process, or a running service."""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from qwen_allinone.cli.figures import Judged
from qwen_allinone.cli.labelled_rows import Row
from qwen_allinone.cli.terminal import in_terminal
from qwen_allinone.errors import QaioError
from qwen_allinone.patience import RemoteService, Response, patiently
from qwen_allinone.service import Service
from qwen_allinone.settings import Settings
from qwen_allinone.wording import of_environment, said


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
            return AnsweredRow(row, problem=in_terminal(error))

    return ask


def over_http(url: str, task: str, labels: Sequence[str], key: str | None = None) -> Ask:
    """Asks a running service; waits where it is full. Its cache is passed over, so that times are times.

    Raises:
        DataFileError: `url` is no web address.
    """
    remote = RemoteService(url, key, {"Cache-Control": "no-store", "Accept-Language": of_environment(os.environ)})

    def ask(row: Row) -> AnsweredRow:
        try:
            response = remote.ask("POST", f"/v1/tasks/{task}", {**row.inputs, "detail": True})
        except (OSError, http.client.HTTPException) as error:
            return AnsweredRow(row, problem=f"{type(error).__name__}: {error}")
        return _read(row, response, labels)

    return ask


def _read(row: Row, response: Response, labels: Sequence[str]) -> AnsweredRow:
    if response.status != 200:
        return AnsweredRow(row, problem=f"{response.status}: {response.body[:200].decode(errors='replace')}")
    try:
        body = json.loads(response.body)
        probabilities = body["detail"]["probabilities"]
        shares = tuple(float(probabilities[label]) for label in labels)
        return AnsweredRow(row, str(body["label"]), shares, shares, response.seconds)
    except (ValueError, KeyError, TypeError) as error:
        return AnsweredRow(row, problem=said("answer_of_another_task", name=type(error).__name__, error=error))
