"""HTML of what the page shows: nothing that comes from outside is markup."""

from __future__ import annotations

import re
from html import unescape

import pytest

from ui import show
from ui.client import Answer, Task
from ui.feedback import BadRow

EVIL = "<img src=x onerror=alert(1)>\"'&"
TAGS = {"div", "p", "span", "i", "ul", "li", "h3", "table", "thead", "tbody", "tr", "th", "td", "strong", "pre"}
TASK = Task("t", EVIL, "label", ("text",), (EVIL, "b"), detail=True)


@pytest.mark.parametrize(
    "html",
    [
        show.conversation([show.Turn(EVIL, EVIL, EVIL, 0.5, EVIL, "failed", EVIL, EVIL)]),
        show.notice(EVIL),
        show.answer(TASK, Answer(label=EVIL, probabilities={EVIL: 1.0})),
        show.answer(TASK, Answer(items=(EVIL,))),
        show.answer(TASK, Answer(text=EVIL)),
        show.answer(TASK, Answer(value={EVIL: EVIL})),
        show.answer(TASK, Answer(value=[{EVIL: EVIL}, {"b": None}])),
        show.answer(TASK, Answer(), picked=True),
        show.shares({EVIL: 1, "c": 2}, TASK.labels),
        show.progress(1, 2, EVIL),
        show.table(EVIL, [show.TableRow(1, EVIL, EVIL, EVIL, EVIL)], TASK.labels, 1),
        show.bad_rows([BadRow(1, EVIL)]),
    ],
)
def test_only_our_own_tags_are_tags(html: str) -> None:
    assert set(re.findall(r"</?\s*([a-zA-Z0-9]+)", html)) <= TAGS
    assert "&lt;img src=x onerror=alert(1)&gt;&quot;&#x27;&amp;" in html


def test_the_sentiment_stands_before_the_reply_in_the_words_agreed() -> None:
    html = show.conversation([show.Turn("你好", "😄", "正面", 0.973, "真好", "done")])
    text = re.sub(r"<[^>]+>", "", html)
    assert text == "你好😄 LLM 情感判断: 正面97.3%真好"


def test_shares_add_up_and_keep_the_tasks_order_with_unknown_labels_last() -> None:
    html = show.shares({"负面": 1, "未知": 1, "正面": 2}, ("正面", "负面"))
    assert re.findall(r'bar-name">([^<]+)<', html) == ["正面", "负面", "未知"]
    assert re.findall(r'bar-figure">([^<]+)<', html) == ["2 条 · 50.0%", "1 条 · 25.0%", "1 条 · 25.0%"]
    assert re.findall(r"width:([\d.]+)%", html) == ["50.00", "25.00", "25.00"]
    assert show.shares({}, ("正面",)) == ""


def test_a_table_has_no_column_that_is_empty_all_the_way_down() -> None:
    bare = show.table("反馈", [show.TableRow(2, "好", "正面", "", "")], ("正面",), 1)
    assert "概率" not in bare and "说明" not in bare
    full = show.table("反馈", [show.TableRow(2, "好", "正面", "90.0%", "")], ("正面",), 5)
    assert "概率" in full and "全部 5 行" in full


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"category": "质量", "product": None, "urgent": True}, "category质量product—urgenttrue"),
        ([{"aspect": "鱼", "polarity": "正面"}, {"aspect": "上菜"}], "aspectpolarity鱼正面上菜—"),
        ([], "[]"),
        ({"a": {"b": 1}}, '{\n  "a": {\n    "b": 1\n  }\n}'),
        (0, "0"),
        ("<b>&", '"<b>&"'),
    ],
)
def test_json_is_shown_as_people_read_it(value: object, text: str) -> None:
    html = show.answer(TASK, Answer(value=value))
    assert unescape(re.sub(r"<[^>]+>", "", html)) == text
