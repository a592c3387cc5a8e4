"""The same chat prompt with fewer examples, in another order, under another instruction; and as it stands in a file."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from qwen_allinone.tasks.task import Message, Task, Variable
from qwen_allinone.wording import said

_Pair = tuple[Message, Message]


@dataclass(frozen=True)
class Variant:
    """One way to write a prompt. `task` has it, `chat` before it is made plain. `instruction`: its number, 1 for the
    prompt's own, 0 for none."""

    task: Task
    chat: Task
    instruction: int
    examples: int
    order: str
    is_plain: bool = False


def variants(task: Task, instructions: Sequence[str] = ()) -> Iterator[Variant]:
    """The ways to write the chat prompt of `task`, the one it has first, no two of them the same.

    Under its own instruction and each of `instructions`; with all, half and none of its examples, a question and an
    answer each; in their order, backwards, and with the answers in turn. Each as a plain text too, if it may be one.
    """
    systems = [message for message in task.messages if message.role == "system"]
    rest = task.messages[len(systems) : -1]
    pairs = list(zip(rest[::2], rest[1::2], strict=True))
    given = [systems, *([Message("system", _literal(text))] for text in instructions)]
    seen = set[tuple[Message, ...]]()
    for number, system in enumerate(given, start=1):
        for count in dict.fromkeys((len(pairs), len(pairs) // 2, 0)):
            for order, chosen in _orders(pairs[:count]):
                turns = [message for pair in chosen for message in pair]
                messages = (*system, *turns, task.messages[-1])
                if messages in seen:
                    continue
                seen.add(messages)
                chat = replace(task, messages=messages)
                variant = Variant(chat, chat, number if system else 0, count, order)
                yield variant
                if plain := chat.as_plain:
                    yield replace(variant, task=plain, is_plain=True)


def _orders(pairs: list[_Pair]) -> Iterator[tuple[str, list[_Pair]]]:
    yield said("as_written"), pairs
    yield said("backwards"), pairs[::-1]
    of_answer: dict[Message, list[_Pair]] = {}
    for pair in pairs:
        of_answer.setdefault(pair[1], []).append(pair)
    longest = max(map(len, of_answer.values()), default=0)
    in_turn = [group[place] for place in range(longest) for group in of_answer.values() if place < len(group)]
    yield said("in_turn"), in_turn


def _literal(text: str) -> tuple[str, ...]:
    """Parts that say `text` itself, as the loader cuts them."""
    return tuple(part for part in re.split(r"(\$)", text.strip()) if part)


def has_examples(task: Task) -> bool:
    """Whether the prompt is a chat whose turns are questions with their answers, and then the text's."""
    roles = [message.role for message in task.messages if message.role != "system"]
    return task.is_chat and roles == [*["user", "assistant"] * (len(roles) // 2), "user"]


def body_of(messages: Sequence[Message]) -> str:
    """The body of a prompt.md that says `messages`."""
    lines = []
    for message in messages:
        text = ""
        for part, following in itertools.zip_longest(message.parts, message.parts[1:], fillvalue=""):
            if isinstance(part, Variable):
                alone = not isinstance(following, str) or not re.match(r"\w", following)
                text += f"${part.name}" if alone else f"${{{part.name}}}"
            else:
                text += part.replace("$", "$$")
        lines.append(f"{message.role}: {text}\n")
    return "".join(lines)
