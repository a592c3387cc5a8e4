"""Inputs of a task: checked, and cleaned where the task asks for it."""

from __future__ import annotations

from collections.abc import Mapping

from qwen_allinone.errors import EmptyInput, InputTooLong, InvalidInput
from qwen_allinone.model.tokenizer import Tokenizer
from qwen_allinone.tasks import Task, clean, is_blank

# No real text has this many characters a token; what has is refused before it costs tokenizer time.
_MOST_CHARS_PER_TOKEN = 16


def prepare(task: Task, inputs: Mapping[str, str], tokenizer: Tokenizer) -> dict[str, str]:
    """Check the inputs of a task and clean them if it asks for that."""
    return {name: _prepare_one(task, name, inputs[name], tokenizer) for name in task.spec.inputs}


def _prepare_one(task: Task, name: str, text: str, tokenizer: Tokenizer) -> str:
    most = task.spec.inputs[name].max_tokens
    _check_characters(name, text, most)
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidInput(f"{name} 含有不成对的 UTF-16 代理字符，请发送有效的 UTF-8 文本", param=name)
    if is_blank(text):
        raise EmptyInput(param=name)
    if task.spec.clean:
        text = clean(text)
        _check_characters(name, text, most)  # one character may have become eighteen
    count = len(tokenizer.encode(text))
    if count > most:
        raise InputTooLong(f"{name} 太长（{count} 个 token），最多 {most} 个 token，请缩短后再试", param=name)
    return text


def _check_characters(name: str, text: str, most: int) -> None:
    if len(text) > most * _MOST_CHARS_PER_TOKEN:
        raise InputTooLong(f"{name} 太长（{len(text)} 个字符），最多 {most} 个 token，请缩短后再试", param=name)
