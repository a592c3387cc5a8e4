"""What a gold case expects, and whether an answer is it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from qwen_allinone.service.answer_types import Answer
from qwen_allinone.tasks import Case
from qwen_allinone.wording import said


@dataclass(frozen=True)
class Outcome:
    """One gold case and what came of it; `problem` is empty if it passed."""

    case: Case
    answer: str
    problem: str

    @property
    def passed(self) -> bool:
        return not self.problem


def judge(case: Case, answer: Answer) -> Outcome:
    """Compare an answer with what its case expects."""
    if case.label is not None:
        problem = "" if answer.label == case.label else said("case_expected", wanted=case.label)
        return Outcome(case, str(answer.label), problem)
    text = answer.text if answer.items is None else "、".join(answer.items)
    found = [word for word in case.none if word in text]
    missing = [word for word in case.all if word not in text]
    if not text:
        problem = said("case_empty")
    elif answer.is_cut:
        problem = said("case_cut")
    elif found:
        problem = said("case_must_not", words="、".join(found))
    elif missing:
        problem = said("case_lacks", words="、".join(missing))
    elif case.any and not any(word in text for word in case.any):
        problem = said("case_none_of", words="、".join(case.any))
    elif wrong := _wrong_fields(case, answer):
        problem = said("case_expected", wanted=wrong)
    elif case.max_chars and len(text) > case.max_chars:
        problem = said("case_too_long", count=len(text), most=case.max_chars)
    else:
        problem = ""
    return Outcome(case, text, problem)


def _wrong_fields(case: Case, answer: Answer) -> str:
    """The expected fields that an answer in JSON has otherwise, or has not."""
    value = answer.value if isinstance(answer.value, dict) else {}
    missing = object()
    wrong = {name: wanted for name, wanted in case.fields.items() if value.get(name, missing) != wanted}
    return json.dumps(wrong, ensure_ascii=False) if wrong else ""
