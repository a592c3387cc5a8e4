"""The written conversations: read strictly, kept apart from what is measured, as many as the card says."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from demo.corpus.apart import Apart, bare, measured_sentences
from demo.corpus.dialogues import Dialogue, DialogueError, clear_of, read_dialogues, read_file

PLAIN = "负面：今天被骂了\n也：挨骂了\n答：挨骂难受吧。\n或：先喝口水。\n负面：因为表格\n答：改好就行。\n"


def written(folder: Path, text: str) -> Path:
    file = folder / "some.txt"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def shipped() -> list[Dialogue]:
    return read_dialogues()


def test_a_conversation_has_turns_with_wordings_and_replies(tmp_path: Path) -> None:
    [dialogue] = read_file(written(tmp_path, "# about work\n" + PLAIN))
    first, second = dialogue.turns
    assert first.texts == ("今天被骂了", "挨骂了")
    assert first.replies == ("挨骂难受吧。", "先喝口水。")
    assert (second.mood, second.texts) == ("负面", ("因为表格",))


def test_empty_lines_separate_conversations(tmp_path: Path) -> None:
    assert len(list(read_file(written(tmp_path, PLAIN + "\n\n" + PLAIN)))) == 2


def test_what_is_known_of_the_user_and_the_system_prompt_come_first(tmp_path: Path) -> None:
    text = "系统：你是书店的客服。\n记得：用户叫小林；用户在考研\n平静：有新书吗\n答：小林想看哪类书？\n"
    [dialogue] = read_file(written(tmp_path, text))
    assert dialogue.system == "你是书店的客服。"
    assert dialogue.memories == ("用户叫小林", "用户在考研")


def test_frames_alone_may_answer_a_turn_whose_kind_is_known(tmp_path: Path) -> None:
    [dialogue] = read_file(
        written(tmp_path, "记得：用户叫小林；用户在考研\n平静：又背了一天书\n类：tired\n想起：用户在考研\n")
    )
    [turn] = dialogue.turns
    assert (turn.replies, turn.kind, turn.recall) == ((), "tired", "用户在考研")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("高兴：今天很好\n答：好。\n", "some.txt:1"),
        ("正面：今天很好\n也是好\n答：好。\n", "some.txt:2"),
        ("正面：今天很好\n", "needs turns"),
        ("答：好。\n", "cannot stand here"),
        ("正面：今天很好\n答：好。\n也：不错\n", "cannot stand here"),
        ("正面：今天很好\n答：好。\n记得：用户叫小林\n", "cannot stand here"),
        ("记得：用户在考研\n平静：又背了一天书\n类：tired\n想起：用户叫小林\n", "some.txt:4"),
        ("正面：\n答：好。\n", "0 characters"),
        ("正面：好\n答：" + "好" * 200 + "\n", "200 characters"),
        ("正面：好\n答：好。\n" * 5, "5 turns"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(DialogueError, match=told):
        list(read_file(written(tmp_path, text)))


def test_all_shipped_files_can_be_read(shipped: list[Dialogue]) -> None:
    assert len(shipped) >= 6000


def test_no_reply_is_written_for_many_texts(shipped: list[Dialogue]) -> None:
    replies = Counter(reply for dialogue in shipped for turn in dialogue.turns for reply in turn.replies)
    assert max(replies.values()) <= 3


def test_no_text_that_is_read_shares_a_sentence_with_what_is_measured(shipped: list[Dialogue]) -> None:
    apart = Apart(measured_sentences())
    for dialogue in clear_of(apart, shipped):
        for text in (text for turn in dialogue.turns for text in turn.texts):
            assert len(bare(text)) <= 5 or apart.clear(text), text
