"""Other ways to write a chat prompt, and that what is written down says the same."""

from __future__ import annotations

from pathlib import Path

from qwen_allinone.tasks import Task, body_of, has_examples, load_task, variants
from tests.support.tasks import PROJECT, SENTIMENT, write_prompts

HEAD = SENTIMENT.partition("判断情感。")[0]
BODY = """\
system: 判断情感，
一个词，$$5 也是词。
user: 很好
assistant: 正面
user: 不错
assistant: 正面
user: 很差
assistant: 负面
user: 糟糕
assistant: 负面
user: ${text}x 和 $text。
"""


def task_of(tmp_path: Path, body: str) -> Task:
    return load_task(write_prompts(tmp_path, sentiment=HEAD + body) / "sentiment")


def test_what_is_written_down_is_what_was_meant(tmp_path: Path) -> None:
    task = task_of(tmp_path / "a", BODY)
    assert body_of(task.messages) == BODY
    for number, way in enumerate(variants(task, ["Judge, for $5: a$b"])):
        assert task_of(tmp_path / str(number), body_of(way.chat.messages)).messages == way.chat.messages


def test_no_way_is_tried_twice_and_the_first_is_the_prompts_own(tmp_path: Path) -> None:
    task = task_of(tmp_path, BODY)
    ways = list(variants(task, ["Judge."]))
    assert ways[0].task == task and ways[0].instruction == 1
    assert len({way.task.messages for way in ways}) == len(ways)
    # All four in three orders, two of one answer in two, none in one; under two instructions.
    assert [(way.instruction, way.examples, way.order) for way in ways[:6]] == [
        *((1, 4, order) for order in ("as written", "backwards", "in turn")),
        *((1, 2, order) for order in ("as written", "backwards")),
        (1, 0, "as written"),
    ]
    assert len(ways) == 12 and ways[6].instruction == 2
    said = [message.parts[0] for message in ways[2].task.messages[1:-1:2]]
    assert said == ["很好", "很差", "不错", "糟糕"]


def test_each_is_tried_as_a_plain_text_where_the_prompt_may_be_one() -> None:
    task = load_task(PROJECT / "prompts" / "sentiment_en")
    ways = list(variants(task))
    assert [way.is_plain for way in ways] == [False, True] * (len(ways) // 2)
    assert all(not way.task.is_chat and way.chat.is_chat for way in ways if way.is_plain)


def test_a_prompt_without_questions_and_answers_has_no_examples(tmp_path: Path) -> None:
    assert has_examples(task_of(tmp_path / "a", BODY)) and has_examples(task_of(tmp_path / "b", "user: $text"))
    assert not has_examples(task_of(tmp_path / "c", "判断 $text"))
    assert not has_examples(task_of(tmp_path / "d", "user: 好\nuser: $text"))
