"""Gold cases: what passes, what fails and what is said about it."""

import pytest

from qwen_allinone.engine import FinishReason, Result
from qwen_allinone.service import Answer, judge
from qwen_allinone.tasks import Case

RESULT = Result(FinishReason.STOP, (1,), prompt_tokens=1, reused_tokens=0)


def _list(*items: str) -> Answer:
    return Answer("keywords", RESULT, text="raw", items=items)


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
        (Case(inputs={"text": "x"}, all=("三点", "停水")), "下午三点停水", ""),
        (Case(inputs={"text": "x"}, all=("三点", "停电", "停气")), "下午三点停水", "lacks 停电、停气"),
    ],
)
def test_a_text_answer_is_held_to_its_case(case: Case, text: str, problem: str) -> None:
    assert judge(case, _text(text)).problem == problem


@pytest.mark.parametrize(("label", "problem"), [("正面", ""), ("负面", "expected 正面")])
def test_a_label_must_be_the_gold_one(label: str, problem: str) -> None:
    outcome = judge(Case(inputs={"text": "x"}, label="正面"), Answer("sentiment", RESULT, label=label))
    assert (outcome.problem, outcome.passed, outcome.answer) == (problem, not problem, label)


@pytest.mark.parametrize(
    ("case", "items", "problem"),
    [
        (Case(inputs={"text": "x"}, all=("地铁", "票价")), ("杭州", "地铁", "票价"), ""),
        (Case(inputs={"text": "x"}, all=("地铁", "票价")), ("杭州", "地铁"), "lacks 票价"),
        (Case(inputs={"text": "x"}, any=("raw",)), ("杭州",), "contains none of raw"),
        (Case(inputs={"text": "x"}, none=("杭州",)), ("杭州地铁",), "must not contain 杭州"),
        (Case(inputs={"text": "x"}, none=("杭州",)), (), "empty answer"),
    ],
)
def test_a_list_is_judged_by_its_items(case: Case, items: tuple[str, ...], problem: str) -> None:
    assert judge(case, _list(*items)).problem == problem


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"category": "质量", "product": None, "summary": "坏了"}, ""),
        ({"category": "物流", "product": None}, 'expected {"category": "质量"}'),
        ({"category": "质量", "product": "杯子"}, 'expected {"product": null}'),
        ({"product": None}, 'expected {"category": "质量"}'),
        (None, 'expected {"category": "质量", "product": null}'),
        (["质量"], 'expected {"category": "质量", "product": null}'),
    ],
)
def test_the_fields_of_an_answer_in_json_must_be_the_gold_ones(value: object, problem: str) -> None:
    case = Case(inputs={"text": "x"}, fields={"category": "质量", "product": None})
    assert judge(case, Answer("ticket", RESULT, text="{...}", value=value)).problem == problem


def test_an_answer_that_was_cut_passes_nothing() -> None:
    case = Case(inputs={"text": "x"}, all=("质量",))
    assert judge(case, Answer("ticket", RESULT, text='{"category": "质量"', is_cut=True)).problem.startswith("cut")
