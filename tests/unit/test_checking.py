"""Gold cases: what passes, what fails and what is said about it."""

import pytest

from qwen_allinone.allinone import Answer
from qwen_allinone.checking import judge
from qwen_allinone.engine import FinishReason, Result
from qwen_allinone.tasks import Case

RESULT = Result(FinishReason.STOP, (1,), prompt_tokens=1, reused_tokens=0)


def _text(text: str) -> Answer:
    return Answer("chat", RESULT, text=text)


@pytest.mark.parametrize(
    ("case", "text", "problem"),
    [
        (Case(inputs={"text": "x"}, any=("抱抱", "辛苦")), "辛苦了", ""),
        (Case(inputs={"text": "x"}, any=("抱抱", "辛苦")), "你好", "contains none of 抱抱、辛苦"),
        (Case(inputs={"text": "x"}, none=("恭喜",)), "恭喜你", "must not contain 恭喜"),
        (Case(inputs={"text": "x"}, none=("恭喜",)), "别难过", ""),
        (Case(inputs={"text": "x"}, max_chars=3), "一二三四", "4 characters, at most 3"),
        (Case(inputs={"text": "x"}, max_chars=4), "一二三四", ""),
        (Case(inputs={"text": "x"}, none=("恭喜",)), "", "empty answer"),
    ],
)
def test_a_text_answer_is_held_to_its_case(case: Case, text: str, problem: str) -> None:
    assert judge(case, _text(text)).problem == problem


@pytest.mark.parametrize(("label", "problem"), [("正面", ""), ("负面", "expected 正面")])
def test_a_label_must_be_the_gold_one(label: str, problem: str) -> None:
    outcome = judge(Case(inputs={"text": "x"}, label="正面"), Answer("sentiment", RESULT, label=label))
    assert (outcome.problem, outcome.passed, outcome.answer) == (problem, not problem, label)
