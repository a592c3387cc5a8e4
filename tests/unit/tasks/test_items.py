"""A free answer becomes items: separators, numbering, quotes, duplicates, the cap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_allinone.tasks import items_of

MOST = 8


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("杭州、地铁、票价", ["杭州", "地铁", "票价"]),
        ("杭州，地铁,票价；高铁;车站\n天气", ["杭州", "地铁", "票价", "高铁", "车站", "天气"]),
        ("1. 房间\n2. 早餐\n3. 前台", ["房间", "早餐", "前台"]),
        ("1、房间，2、早餐；（3）前台", ["房间", "早餐", "前台"]),
        ("① 房间\n② 早餐", ["房间", "早餐"]),
        ("- 房间\n* 早餐\n• 前台", ["房间", "早餐", "前台"]),
        ("1: 房间\n2) 早餐", ["房间", "早餐"]),
        ("“手机”、《红楼梦》。", ["手机", "红楼梦"]),
        ("  房间 、 早餐  ", ["房间", "早餐"]),
        ("房间、早餐、房间", ["房间", "早餐"]),
        ("Apple, apple, PEAR", ["Apple", "PEAR"]),
        ("1.5倍、-3度、2024、1,000元", ["1.5倍", "-3度", "2024", "1,000元"]),
        ("Wi-Fi、C++", ["Wi-Fi", "C++"]),
        ("房间", ["房间"]),
        ("、，\n；。", []),
        ("", []),
    ],
)
def test_an_answer_is_cut_at_separators_and_bared_of_what_surrounds_its_items(text: str, items: list[str]) -> None:
    assert list(items_of(text, MOST)) == items


def test_no_more_items_than_asked_for_and_the_first_ones() -> None:
    assert items_of("一、二、三、二、四、五", 4) == ("一", "二", "三", "四")


def test_repetitions_do_not_use_up_the_room() -> None:
    assert items_of("、".join(["房间"] * 50 + ["早餐"]), 2) == ("房间", "早餐")


@given(st.text(alphabet="甲乙a B1.、，,；;\n（）()-“”。①*", max_size=60), st.integers(1, 5))
def test_items_are_never_empty_repeated_or_too_many_and_hold_nothing_new(text: str, most: int) -> None:
    items = items_of(text, most)
    assert len(items) <= most
    assert all(item and item == item.strip() and item in text for item in items)
    assert len({item.casefold() for item in items}) == len(items)
    assert not any(mark in item for item in items for mark in "、，；;\n")
