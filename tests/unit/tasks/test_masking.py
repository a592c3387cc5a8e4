"""Numbers that a model is not to see: found however they are written, and given back as they were."""

from __future__ import annotations

import time
from typing import get_args

import pytest

from qwen_allinone.tasks import Masking, MaskKind, RestoredPieces

ALL: tuple[MaskKind, ...] = get_args(MaskKind)


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("打13812345678找我", "打[电话1]找我"),
        ("138-1234-5678 或 +86 138 1234 5678。", "[电话1] 或 [电话2]。"),
        ("座机（010）62345678 转 8，010-62345679", "座机[电话1] 转 8，[电话2]"),
        ("400-820-8820", "[电话1]"),
        ("call +1 415-555-2671 now", "call [电话1] now"),
        ("１３８１２３４５６７８", "[电话1]"),
        ("138\u200b1234\u200b5678", "[电话1]"),
        ("一号13812345678\n二号13912345678", "一号[电话1]\n二号[电话2]"),
        ("身份证11010519491231002X。", "身份证[身份证1]。"),
        ("卡号 4111 1111 1111 1111", "卡号 [银行卡1]"),
        ("写信到 li.lei+1@mail.example.com，谢谢", "写信到 [邮箱1]，谢谢"),
        ("订单号：2024112912345678 到哪了", "订单号：[单号1] 到哪了"),
        ("运单号是SF-123456", "运单号是[单号1]"),
        ("我说[电话1]，号码13812345678", "我说[电话1]，号码[电话2]"),
    ],
)
def test_what_is_hidden_and_given_back(text: str, hidden: str) -> None:
    masking = Masking()
    assert masking.hide(text, ALL) == hidden
    assert masking.restore(hidden) == text


@pytest.mark.parametrize(
    "text", ["2024年11月29日 12:30", "花了199.50元买了3件", "邮编100080", "第4111111111111112次", "3.1415926535", "a@b"]
)
def test_what_is_no_such_number_stays(text: str) -> None:
    kinds: tuple[MaskKind, ...] = ("phone", "id_card", "bank_card", "email")
    assert Masking().hide(text, kinds) == text


def test_only_the_kinds_that_are_asked_for_are_hidden() -> None:
    assert Masking().hide("13812345678 a@b.com", ("email",)) == "13812345678 [邮箱1]"


def test_a_number_is_the_same_word_in_all_texts_of_a_conversation() -> None:
    masking = Masking()
    assert masking.hide("我是13812345678", ALL) == "我是[电话1]"
    assert masking.hide("另一个13912345678，刚才是138 1234 5678", ALL) == "另一个[电话2]，刚才是[电话1]"


def test_pieces_of_a_reply_are_restored_wherever_they_are_cut() -> None:
    masking = Masking()
    masking.hide("13812345678 13912345678", ALL)
    reply = "好的[电话1]，[电话3]和[[电话2]][电"
    for size in range(1, len(reply) + 1):
        told = list[str]()
        pieces = RestoredPieces(masking, told.append)
        for first in range(0, len(reply), size):
            pieces.push(reply[first : first + size])
        pieces.end()
        assert "".join(told) == "好的13812345678，[电话3]和[13912345678][电"
        assert all(told)


def test_a_piece_that_is_no_word_is_not_held_back() -> None:
    masking, told = Masking(), list[str]()
    masking.hide("13812345678", ALL)
    pieces = RestoredPieces(masking, told.append)
    for piece in ("您好", "[", "是的"):
        pieces.push(piece)
    assert told == ["您好", "[是的"]


@pytest.mark.parametrize("part", ["1", "1 ", "a.", "a@", "单号", "单:1-", "+1 ", "０", "1\u200b"])
def test_no_text_takes_long(part: str) -> None:
    began = time.thread_time()  # other tests may have left threads that compute
    Masking().hide(part * (16_000 // len(part)), ALL)
    assert time.thread_time() - began < 1.0
