"""Inputs of a task: what is refused before anything is computed, and what is cleaned.

Messages without a task are measured in completions.py, decisions in questions.py.
"""

from __future__ import annotations

import re

from qwen_allinone.errors import EmptyInput, InputTooLong, InvalidInput
from qwen_allinone.model.tokenizer import Tokenizer
from qwen_allinone.tasks import MOST_CHARS_PER_TOKEN, Task, clean, is_blank
from qwen_allinone.wording import said

# A text with one of these letters or digits is not blank, which takes longer to find out.
_SURELY_SEEN = re.compile(r"[0-9A-Za-z\u4e00-\u9fff]")


def prepare(task: Task, name: str, text: str) -> str:
    """The input `name` of `task`, cleaned if the task asks for that.

    Raises:
        InvalidInput: no text of Unicode. EmptyInput: nothing in it can be seen.
        InputTooLong: more characters than the tokens allowed can be; see also `check_length`.
    """
    most = task.spec.inputs[name].max_tokens * MOST_CHARS_PER_TOKEN
    if len(text) > most:
        raise _too_long(task, name, text)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidInput(said("half_pair", place=name), param=name) from None
    if not _SURELY_SEEN.search(text) and is_blank(text):
        raise EmptyInput(param=name)
    if not task.spec.clean:
        return text
    cleaned = clean(text)
    if len(cleaned) > most:  # one character may have become eighteen
        raise _too_long(task, name, cleaned)
    return cleaned


def check_length(task: Task, name: str, text: str, tokenizer: Tokenizer) -> None:
    """Raise InputTooLong if `text` has more tokens than the input `name` of `task` may have."""
    most = task.spec.inputs[name].max_tokens
    count = len(tokenizer.encode(text))
    if count > most:
        raise InputTooLong(said("input_tokens", name=name, count=count, most=most), param=name)


def _too_long(task: Task, name: str, text: str) -> InputTooLong:
    most = task.spec.inputs[name].max_tokens
    return InputTooLong(said("input_characters", name=name, count=len(text), most=most), param=name)
