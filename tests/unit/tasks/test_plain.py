"""A chat prompt as a plain text."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwen_allinone.errors import TaskFileError
from qwen_allinone.tasks import Completion, load_task, render
from tests.support.tasks import CHAT, SENTIMENT, write_prompts

PROMPT = """\
---
description: Mood
inputs: {text: {max_tokens: 40}}
output:
  kind: label
  labels: [{name: Good}, {name: Bad}]
decoding: {strategy: greedy, max_new_tokens: 8}
plain: {text: Review, label: Mood}
---
system: Is it good or bad?
user: Nice and warm.
assistant: Good
user: Cold again.
assistant: Bad
user: $text
"""


def test_turns_become_lines_with_the_words_before_them(tmp_path: Path) -> None:
    plain = load_task(write_prompts(tmp_path, sentiment=PROMPT) / "sentiment").as_plain
    assert plain is not None and not plain.is_chat
    assert render(plain, {"text": "So so."}) == Completion(
        "Is it good or bad?\n\nReview: Nice and warm.\nMood: Good\n\nReview: Cold again.\nMood: Bad\n\n"
        "Review: So so.\nMood:"
    )
    assert plain.as_plain is None


def test_a_prompt_without_the_words_has_no_other_form(tmp_path: Path) -> None:
    root = write_prompts(tmp_path, sentiment=PROMPT.replace("plain: {text: Review, label: Mood}\n", ""))
    assert load_task(root / "sentiment").as_plain is None


@pytest.mark.parametrize(
    ("name", "prompt", "said"),
    [
        ("sentiment", SENTIMENT.replace("decoding:", "plain: {text: A, label: B}\ndecoding:"), "plain already"),
        ("chat", CHAT.replace("decoding:", "plain: {text: A, label: B}\ndecoding:"), "plain is for `kind: label` only"),
        ("sentiment", PROMPT.replace("label: Mood", "labl: Mood"), r"plain\.lab"),
        ("sentiment", PROMPT.replace("text: Review", "text: ' '"), "plain.text"),
    ],
)
def test_what_cannot_be_written_plain_says_so(tmp_path: Path, name: str, prompt: str, said: str) -> None:
    root = write_prompts(tmp_path, **{name: prompt})  # type: ignore[arg-type]
    with pytest.raises(TaskFileError, match=said):
        load_task(root / name)
