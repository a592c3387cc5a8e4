"""Runs gold cases through the service and judges the answers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from qwen_allinone.cli.terminal import in_terminal
from qwen_allinone.errors import QaioError
from qwen_allinone.patience import patiently
from qwen_allinone.service import Answer, Service
from qwen_allinone.tasks import Case


@dataclass(frozen=True)
class Outcome:
    """One gold case and what came of it; `problem` is empty if it passed."""

    case: Case
    answer: str
    problem: str

    @property
    def passed(self) -> bool:
        return not self.problem


def check_task(service: Service, name: str, cases: Iterable[Case], seed: int, at_once: int) -> Iterator[Outcome]:
    """Run `cases` of the task `name`, `at_once` at a time; yields outcomes in the order of the cases."""

    def run(case: Case) -> Outcome:
        try:
            return judge(case, patiently(lambda: service.run(name, case.inputs, seed=seed)))
        except QaioError as error:
            return Outcome(case, "", in_terminal(error))

    with ThreadPoolExecutor(at_once) as pool:
        yield from pool.map(run, cases)


def judge(case: Case, answer: Answer) -> Outcome:
    """Compare an answer with what its case expects."""
    if case.label is not None:
        problem = "" if answer.label == case.label else f"expected {case.label}"
        return Outcome(case, str(answer.label), problem)
    text = answer.text if answer.items is None else "、".join(answer.items)
    found = [word for word in case.none if word in text]
    missing = [word for word in case.all if word not in text]
    if not text:
        problem = "empty answer"
    elif answer.is_cut:
        problem = "cut at its limit: raise max_new_tokens, or bound the schema"
    elif found:
        problem = f"must not contain {'、'.join(found)}"
    elif missing:
        problem = f"lacks {'、'.join(missing)}"
    elif case.any and not any(word in text for word in case.any):
        problem = f"contains none of {'、'.join(case.any)}"
    elif wrong := _wrong_fields(case, answer):
        problem = f"expected {wrong}"
    elif case.max_chars and len(text) > case.max_chars:
        problem = f"{len(text)} characters, at most {case.max_chars}"
    else:
        problem = ""
    return Outcome(case, text, problem)


def _wrong_fields(case: Case, answer: Answer) -> str:
    """The expected fields that an answer in JSON has otherwise, or has not."""
    value = answer.value if isinstance(answer.value, dict) else {}
    missing = object()
    wrong = {name: wanted for name, wanted in case.fields.items() if value.get(name, missing) != wanted}
    return json.dumps(wrong, ensure_ascii=False) if wrong else ""
