"""Frames: read strictly, found by meaning, never where they could do harm."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from demo.corpus.dialogues import CALM, NEGATIVE, POSITIVE, Dialogue, Turn
from demo.corpus.frames import DESPAIR, GAP, MOODS, Frame, FrameError, framed, read_frames, topic_of

WORDS = ("难过", "高兴", "12356", "再见", "sorry")


def vectors(texts: list[str]) -> Tensor:
    """Stands for the teacher's: an axis for each of WORDS."""
    return torch.tensor([[float(word in text) for word in WORDS] + [1.0] for text in texts])


def frame(text: str, kind: str) -> Frame:
    return Frame(text, kind)


FRAMES = [
    frame("{it}这样，真让人难过。", "bad_thing"),
    frame("听着就难过。", "low"),
    frame("{it}成了，真高兴。", "good_big"),
    frame("真为你高兴。", "good_small"),
    frame("再见，慢走。", "bye"),
    frame("请打12356，别一个人待着。", DESPAIR),
    frame("I am sorry to hear that.", "en_bad"),
]


def only(turn: Turn) -> set[str]:
    found = framed([Dialogue((turn,))], FRAMES, vectors)[turn]
    return {*found.gapped, *found.whole}


def test_a_turn_gets_the_frames_of_its_mood_and_meaning() -> None:
    bad = Turn(NEGATIVE, ("手机摔了",), ("手机摔了真让人难过。",))
    assert only(bad) == {"{it}这样，真让人难过。", "听着就难过。", "再见，慢走。"}, "none of joy, none of despair"
    found = framed([Dialogue((bad,))], FRAMES, vectors)[bad]
    assert found.gapped == ("{it}这样，真让人难过。",) and found.whole[0] == "听着就难过。", "the nearest first"
    assert only(Turn(POSITIVE, ("升职了",), ("升职了，真高兴。",))) == {
        "{it}成了，真高兴。",
        "真为你高兴。",
        "再见，慢走。",
    }
    assert only(Turn(CALM, ("我走了",), ("再见。",))) == {"再见，慢走。"}


def test_words_of_despair_get_frames_that_name_help_and_nothing_else_does() -> None:
    assert only(Turn(NEGATIVE, ("不想活了",), ("请打12356。",))) == {"请打12356，别一个人待着。"}


def test_english_is_answered_in_english() -> None:
    assert only(Turn(NEGATIVE, ("My phone broke",), ("I am sorry.",))) == {"I am sorry to hear that."}


def test_the_topic_is_a_word_that_a_reply_takes_up() -> None:
    assert topic_of(["今天", "外卖", "又", "凉了"], ["外卖凉了真扫兴。"]) == "外卖"
    assert topic_of(["今天", "真的"], ["今天真的不容易。"]) == "", "these say nothing of it"
    assert topic_of(["你好"], ["在呢。"]) == ""


@pytest.mark.parametrize("line", ["{it}和{it}都好。", "{他}真好。", "好", "好" * 161])
def test_a_line_that_is_no_frame_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "greet.txt").write_text(f"# greetings\n在呢，说吧。\n{line}\n", "utf-8")
    with pytest.raises(FrameError, match=r"greet\.txt:3"):
        read_frames(tmp_path)


def test_the_frames_that_ship_are_sound() -> None:
    frames = read_frames()
    texts = [each.text for each in frames]
    assert len(set(texts)) == len(texts) > 3000
    kinds = {each.kind for each in frames}
    assert all(any(kind.startswith(begin) for kind in kinds) for begin in MOODS)
    assert 0.3 < sum(GAP in text for text in texts) / len(texts) < 0.7
    for each in frames:
        if each.kind == DESPAIR:
            assert re.search("12356|120|110|不要一个人|别一个人|陪|安全", each.text), each.text
        else:
            assert not re.search(r"\d|12356", each.text), each.text
        cheers = re.search("恭喜|祝贺|真为你高兴|替你高兴|太好了|太棒了", each.text)
        assert not (cheers and each.moods == (NEGATIVE,)), each.text
