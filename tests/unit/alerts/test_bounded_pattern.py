"""Patterns: what is taken, and why the rest is not."""

from __future__ import annotations

import pytest

from qwen_allinone.alerts.bounded_pattern import LOOKED_AT, PatternError, bounded


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("退款", "我要退款"),
        ("退.{0,20}款", "退了三次都不给我款"),
        ("(?:退|赔)(款|钱)", "快赔钱"),
        (r"\d{3,4}-?\d{7,8}", "打 010-12345678 吧"),
        ("[^a-z]坏了", "全坏了"),
        (r"[\]x]y", "]y"),
        ("(哈哈){2,3}", "哈哈哈哈"),
        ("REFUND", "a refund please"),
        (r"^a\+b$", "a+b"),
    ],
)
def test_what_is_bounded_is_found(source: str, text: str) -> None:
    assert bounded(source).is_in(text)
    assert not bounded(source).is_in("别的")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("a*", "{0,20}"),
        ("a+", "{1,20}"),
        ("(a{1,20}){1,20}", "too many ways"),
        ("a{1,60}b{1,60}", "steps at one place"),
        ("a{1,9}{2}", "repeats what repeats already"),
        (r"(a)\1", "is not taken"),
        ("(?=a)b", "looks around"),
        ("(?i)b", "sets flags"),
        ("a?", "fits every text"),
        ("a|", "fits every text"),
        ("", "fits every text"),
        ("a{3,2}", "less than it must"),
        ("a{1,9999}", "repeats too often"),
        ("a{2,}", "no number of times with an end"),
        ("(a", "not closed"),
        ("a)", "has no partner"),
        ("[a", "not closed"),
        ("[z-a]", "is no regular expression"),
        ("[[a]]", "is no regular expression"),
        ("(" * 11 + "a" + ")" * 11, "nested too deep"),
        (r"a\q", "is not taken"),
        ("a\\", "the end is not taken"),
        ("?a", "stands where nothing can be repeated"),
        (".{0,100}a.{0,100}b.{0,100}c", "too many ways"),
    ],
)
def test_what_has_no_bound_is_refused_with_what_to_do(source: str, said: str) -> None:
    with pytest.raises(PatternError) as raised:
        bounded(source)
    assert said in str(raised.value)


def test_only_the_beginning_of_a_long_text_is_looked_at() -> None:
    assert bounded("b").is_in("a" * (LOOKED_AT - 1) + "b")
    assert not bounded("b").is_in("a" * LOOKED_AT + "b")
