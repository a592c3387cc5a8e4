"""At which texts a rule fires, and what is told of them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from qwen_allinone.alerts import Heard, Subject, events
from qwen_allinone.alerts.matching import fires
from qwen_allinone.alerts.rules import Rule

ANGRY = Subject(
    "feedback",
    "row/1",
    "坏了，我要退款",
    "reviews.csv:2",
    {
        "sentiment": Heard("负面", 0.97),
        "intent": Heard("投诉", 0.8),
        "keywords": Heard(items=("售后", "物流")),
    },
    1.0,
)


def rule(**when: Any) -> Rule:
    return Rule.model_validate({"name": "a", "when": when, "channels": "ops"})


@pytest.mark.parametrize(
    ("when", "holds"),
    [
        ({"labels": {"sentiment": "负面"}}, True),
        ({"labels": {"sentiment": "正面"}}, False),
        ({"labels": {"sentiment": ["正面", "负面"]}}, True),
        ({"probability": {"sentiment": 0.97}}, True),
        ({"probability": {"sentiment": 0.98}}, False),
        ({"intent": "投诉"}, True),
        ({"labels": {"care": "没有"}}, False),
        ({"keywords": "退款"}, True),
        ({"keywords": ["没有的", "物流"]}, True),
        ({"keywords": "没有的"}, False),
        ({"pattern": "要.{0,3}款"}, True),
        ({"pattern": "要.款"}, True),
        ({"pattern": "要款"}, False),
        ({"rating": {"at_most": 1}}, True),
        ({"rating": {"at_least": 2.0}}, False),
        ({"intent": "投诉", "rating": {"at_least": 2}}, False),
    ],
)
def test_all_that_a_rule_says_must_hold(when: dict[str, Any], holds: bool) -> None:
    assert fires(rule(**when), ANGRY) is holds


def test_a_text_without_a_rating_is_none_of_any_rating() -> None:
    assert not fires(rule(rating={"at_most": 5.0}), replace(ANGRY, rating=None))


def test_a_rule_looks_only_at_what_it_is_for() -> None:
    live = Rule.model_validate({"name": "a", "when": {"intent": "投诉"}, "channels": "ops", "sources": "live"})
    assert not fires(live, ANGRY) and fires(live, replace(ANGRY, source="live"))


def test_what_a_user_wrote_is_told_only_where_the_rule_says_so() -> None:
    quiet = rule(intent="投诉")
    (event,) = events([quiet], ANGRY, 5.0)
    assert "退款" not in json.loads(event.body).__repr__() and "物流" not in json.loads(event.body).__repr__()
    (event,) = events([quiet.model_copy(update={"show_text": True})], ANGRY, 5.0)
    told = json.loads(event.body)
    assert (told["text"], told["keywords"], told["place"]) == (ANGRY.text, ["售后", "物流"], "reviews.csv:2")
    assert told["labels"]["intent"] == {"label": "投诉", "probability": 0.8}


def test_the_same_text_told_again_has_the_same_id_and_another_has_not() -> None:
    both = [rule(intent="投诉"), rule(intent="投诉").model_copy(update={"name": "b"})]
    ids = [event.id for event in events(both, ANGRY, 1.0)]
    assert ids == [event.id for event in events(both, ANGRY, 2.0)] and len(set(ids)) == 2
    assert not set(ids) & {event.id for event in events(both, replace(ANGRY, key="row/2"), 1.0)}


def test_a_lone_surrogate_is_no_reason_to_fail() -> None:
    (event,) = events([rule(intent="投诉").model_copy(update={"show_text": True})], replace(ANGRY, text="\ud800"), 1.0)
    assert event.of(event.line()) == event
