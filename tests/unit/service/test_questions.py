"""How options are compared, and in which order they stand."""

from __future__ import annotations

import pytest

from qwen_allinone.service.questions import Option, OptionScores, TypedQuestion, compare

SCORES = OptionScores((-4.0, -6.0, -5.0), ((1,), (2, 3, 4), (5, 6)))
ALONE = OptionScores((-1.0, -5.0, -3.5), SCORES.options)


def test_each_rule_has_its_own_favourite() -> None:
    assert compare(SCORES, rule="mean") == [-4.0, -2.0, -2.5], "the long one"
    assert compare(SCORES, rule="sum") == [-4.0, -6.0, -5.0], "the short one"
    assert compare(SCORES, rule="gain", alone=ALONE) == [-3.0, -1.0, -1.5], "what the text adds"
    assert compare(SCORES) == compare(SCORES, rule="mean")


def test_a_gain_needs_what_it_is_measured_against() -> None:
    with pytest.raises(ValueError, match="without the text"):
        compare(SCORES, rule="gain")


def test_choices_stand_sorted_and_levels_as_given() -> None:
    options = (Option("b"), Option("a"), Option("a", kind="bool"))
    assert [o.kind for o in TypedQuestion("choice", "?", options).in_prompt] == ["bool", "str", "str"]
    assert TypedQuestion("score", "?", options).in_prompt == options
    assert [o.text for o in TypedQuestion("predicate", "?").in_prompt] == ["是", "否"]
