"""Frames: read strictly, drawn by kind, never where they could do harm."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import pytest

from demo.corpus.dialogues import HELP, KINDS, NEGATIVE, DialogueError, read_dialogues, read_file
from demo.corpus.frames import GAP, FrameError, Frames, read_frames

OFFICES = re.compile("123(06|15|45|48)")  # numbers of public services: trains, consumers, offices, legal aid
FRAMES = Frames(("{it}这样，真让人难过。", "{it}的事，换谁都会急。"), ("听着就难过。",))


@pytest.mark.parametrize(
    ("topic", "named"),
    [
        ("我妈", "妈妈的事，换谁都会急。"),
        ("我妈妈", "你妈妈的事，换谁都会急。"),
        ("我们班", "你们班的事，换谁都会急。"),
    ],
)
def test_what_is_the_users_own_is_named_as_his(topic: str, named: str) -> None:
    frames = Frames(("{it}的事，换谁都会急。",), ("真让人心烦。",))
    assert named in {frames.draw(topic, Random(seed)) for seed in range(20)}


def test_a_frame_names_the_topic_where_there_is_one() -> None:
    rng = Random(1)
    with_topic = {FRAMES.draw("外卖", rng) for _ in range(60)}
    assert with_topic == {"外卖这样，真让人难过。", "外卖的事，换谁都会急。", "听着就难过。"}
    assert {FRAMES.draw("", rng) for _ in range(20)} == {"听着就难过。"}


def test_fewer_of_them_keep_both_kinds() -> None:
    many = Frames(tuple(f"{n}{{it}}。" for n in range(6)), tuple(f"{n}好。" for n in range(7)))
    assert many.first(7) == Frames(many.gapped[:3], many.whole[:4])
    assert many.first(20) == many
    assert FRAMES.first(7) == FRAMES


@pytest.mark.parametrize(
    ("memory", "replies"),
    [
        ("用户叫小林", {"小林，听着就难过。"}),
        ("用户的猫叫煤球", {f"{said}你的猫叫煤球。听着就难过。" for said in ("记得", "我记得", "你说过")}),
    ],
)
def test_what_matters_of_all_that_is_known_stands_before_the_frame(memory: str, replies: set[str]) -> None:
    assert {FRAMES.draw("外卖", Random(seed), memory) for seed in range(30)} == replies


@pytest.mark.parametrize(
    ("frame", "topic", "reply"),
    [
        ("{it} sounds hard.", "my exam", "My exam sounds hard."),
        ("Tell me about the {it}.", "the exam", "Tell me about the exam."),
        ("Tell me about the {it}.", "my exam", "Tell me about your exam."),
    ],
)
def test_english_topics_read_naturally(frame: str, topic: str, reply: str) -> None:
    drawn = {Frames((frame,), ("Oh.",)).draw(topic, Random(seed)) for seed in range(20)}
    assert drawn == {reply, "Oh."}


@pytest.mark.parametrize("line", ["{it}和{it}都好。", "{他}真好。", "好", "好" * 161])
def test_a_line_that_is_no_frame_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "greet.txt").write_text(f"# greetings\n在呢，说吧。\n{line}\n", "utf-8")
    with pytest.raises(FrameError, match=r"greet\.txt:3"):
        read_frames(tmp_path)


def test_a_kind_without_a_frame_for_texts_without_a_topic_is_refused(tmp_path: Path) -> None:
    (tmp_path / "greet.txt").write_text("{it}，在呢。\n", "utf-8")
    with pytest.raises(FrameError, match=r"greet\.txt"):
        read_frames(tmp_path)


@pytest.mark.parametrize("line", ["类：no_such_kind", "类：bad_thing；手机壳"])
def test_a_kind_or_topic_that_cannot_be_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "x.txt"
    file.write_text(f"负面：手机摔了\n{line}\n答：摔碎了吗？\n", "utf-8")
    with pytest.raises(DialogueError, match=r"x\.txt:2"):
        list(read_file(file))


def test_the_frames_that_ship_are_sound() -> None:
    kinds = read_frames()
    assert set(kinds) == KINDS
    texts = [text for frames in kinds.values() for text in (*frames.gapped, *frames.whole)]
    assert all(
        len({*frames.gapped, *frames.whole}) == len(frames.gapped) + len(frames.whole) for frames in kinds.values()
    )
    assert len(set(texts)) > 0.98 * len(texts) > 5000, "few frames fit two kinds"
    assert 0.3 < sum(GAP in text for text in texts) / len(texts) < 0.7
    for kind, frames in kinds.items():
        for text in (*frames.gapped, *frames.whole):
            if kind in ("despair", "violence", "en_despair"):
                assert HELP.search(text), text
            else:
                assert not re.search(r"\d", OFFICES.sub("", text)), text
            cheers = re.search("恭喜|祝贺|真为你高兴|替你高兴|太好了|太棒了", text)
            assert not (
                cheers
                and re.match("bad_|low|tired|angry|afraid|lonely|ashamed|despair|violence|en_bad|en_despair", kind)
            ), text


def test_most_turns_have_a_kind_and_bad_news_none_of_joy() -> None:
    turns = [turn for dialogue in read_dialogues() for turn in dialogue.turns]
    assert sum(bool(turn.kind) for turn in turns) > 0.85 * len(turns)
    bad = [turn for turn in turns if turn.mood == NEGATIVE]
    glad = [turn for turn in bad if re.match("good_|proud|review_good|service_praise|en_good", turn.kind)]
    assert len(glad) < 0.01 * len(bad), "a small good thing in the middle of a sad talk"
