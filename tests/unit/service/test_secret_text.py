"""Secrets are found by how they look, and what is none is left alone."""

from __future__ import annotations

import time

import pytest

from qwen_allinone.service.memory_keeper import statements
from qwen_allinone.service.secret_text import TAKEN_OUT, has_secret, without_secrets

SECRETS = {
    "identity card": "11010519491231002X",
    "identity card in wide digits": "１１０１０５１９４９１２３１００２Ｘ",
    "old identity card": "110105491231002",
    "bank card": "6222021234567890123",
    "card in groups": "4111 1111 1111 1111",
    "card with dashes": "4111-1111-1111-1111",
    "card in words": "六二二二零二一二三四五六七八九零",
    "telephone": "13812345678",
    "telephone in groups": "138-1234-5678",
    "passport": "E12345678",
    "IBAN": "DE89 3704 0044 0532 0130 00",
    "key of a service": "sk-proj-abcdEFGH1234567890",
    "key of a cloud": "AKIAIOSFODNN7EXAMPLE",
    "token of a forge": "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "web token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abcDEF123",
    "block of PEM": "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg",
    "run of letters and digits": "a8Fk29dKq0ZmX71bQe",
    "password said": "密码是abc12345",
    "code said": "验证码 482913",
    "English password": "my password is hunter2",
    "PIN": "pin: 4821",
}
HARMLESS = (
    "用户今年六十二岁",
    "用户的生日是1998年10月20日",
    "用户的生日是1998-10-20",
    "用户在2024年买了房，贷款1200000元",
    "用户跑了42.195公里",
    "用户坐G1234次高铁",
    "用户在学C++和Python3",
    "用户忘记了密码",
    "用户住在101室",
    "用户体重128斤，身高170",
    "用户喜欢三国演义和七十二变",
    "用户想买iPhone15ProMax",
)


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_a_secret_is_taken_out_and_no_statement_with_one_is_kept(secret: str) -> None:
    text = f"我住在杭州，{secret}，在学吉他"
    assert has_secret(text) and has_secret(secret)
    left = without_secrets(text)
    assert left.startswith("我住在杭州") and TAKEN_OUT in left and not has_secret(left)
    tail = secret[-4:]
    assert tail not in left
    assert statements([f"用户的号码是{secret}", "用户住在杭州"]) == ["用户住在杭州"]


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_stays_as_it_was(text: str) -> None:
    assert not has_secret(text) and without_secrets(text) == text


def test_of_what_a_model_found_only_statements_are_kept() -> None:
    items = [
        "用户住在杭州",
        "无",
        "无。",
        "None",
        "",
        "好",
        "长" * 201,
        f"用户的卡号是{TAKEN_OUT}",
        "用户\n不吃\u200b香菜",
        "用户住在杭州",
    ]
    assert statements(items) == ["用户住在杭州", "用户 不吃香菜", "用户住在杭州"]
    assert statements(None) == []


def test_a_long_text_is_looked_through_in_no_time() -> None:
    """None of the patterns goes back and forth over what nearly fits."""
    began = time.thread_time()
    for piece in ("1 ", "a", "a1_", "密码", "eyJ.", "-", "pin ", "AB12 ", "一二"):
        has_secret(piece * 20_000)
    assert time.thread_time() - began < 15
