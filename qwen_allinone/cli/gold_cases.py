"""Runs gold cases through the service."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from qwen_allinone.cli.terminal import in_terminal
from qwen_allinone.errors import QaioError
from qwen_allinone.patience import patiently
from qwen_allinone.service import Outcome, Service, judge
from qwen_allinone.tasks import Case


def check_task(service: Service, name: str, cases: Iterable[Case], seed: int, at_once: int) -> Iterator[Outcome]:
    """Run `cases` of the task `name`, `at_once` at a time; yields outcomes in the order of the cases."""

    def run(case: Case) -> Outcome:
        try:
            return judge(case, patiently(lambda: service.run(name, case.inputs, seed=seed)))
        except QaioError as error:
            return Outcome(case, "", in_terminal(error))

    with ThreadPoolExecutor(at_once) as pool:
        yield from pool.map(run, cases)
