"""First messages by kind: read strictly."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.corpus.dialogues import DialogueError
from demo.corpus.messages import read_message_file, read_messages


def written(folder: Path, text: str) -> Path:
    file = folder / "some.txt"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_message_has_the_kind_and_mood_of_its_heading_and_a_topic_of_its_own(tmp_path: Path) -> None:
    text = "# pets\n[talk_pets 平静]\n我家猫又霸占键盘了；猫\n\n乌龟冬天不动\n[bad_lost 负面]\n钥匙丢了；钥匙\n"
    turns = [dialogue.turns[0] for dialogue in read_message_file(written(tmp_path, text))]
    assert [(turn.texts[0], turn.kind, turn.mood, turn.topic) for turn in turns] == [
        ("我家猫又霸占键盘了", "talk_pets", "平静", "猫"),
        ("乌龟冬天不动", "talk_pets", "平静", ""),
        ("钥匙丢了", "bad_lost", "负面", "钥匙"),
    ]
    assert all(not turn.replies for turn in turns)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("我家猫\n", "some.txt:1: a heading such as"),
        ("[no_such_kind 平静]\n我家猫\n", "some.txt:1: .*no heading"),
        ("[talk_pets 高兴]\n我家猫\n", "some.txt:1: .*no heading"),
        ("[talk_pets]\n我家猫\n", "some.txt:1: .*no heading"),
        ("[talk_pets 平静]\n我家猫；狗\n", "some.txt:2: '狗' does not stand"),
        ("[talk_pets 平静]\n；\n", "some.txt:2: 0 characters"),
        (f"[talk_pets 平静]\n{'猫' * 301}\n", "some.txt:2: 301 characters"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(DialogueError, match=told):
        list(read_message_file(written(tmp_path, text)))


def test_the_messages_that_ship_are_many_and_no_two_alike() -> None:
    said = [(message.turns[0].texts[0], message.turns[0].kind) for message in read_messages()]
    assert len(set(said)) == len(said) > 20_000
