"""Typed questions about one text, answered with probabilities by ordinary chat weights. No Flask, no torch.

The text is a message of its own; each question is the message after it, and its options are scored as what the model
would say next: the mean log-probability of an option's tokens, in full. Choices stand in the question in an order of
their own, not in the caller's, so shuffling them changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from qwen_allinone.engine import Decide, Question
from qwen_allinone.engine.slots import shared
from qwen_allinone.errors import ContextExceeded, EmptyInput
from qwen_allinone.service.allinone import AllInOne, Texts
from qwen_allinone.service.answers import Answer, Watch, unwatched
from qwen_allinone.service.completions import Message, chat_ids
from qwen_allinone.service.waiting import result_of
from qwen_allinone.tasks import is_blank

# What telemetry calls these answers, which come of no task.
DECISIONS = "decisions"

_YES, _NO = "是", "否"
_WORDINGS = {
    "predicate": "根据以上内容，判断下面的说法是否成立，只回答“是”或“否”。\n说法：{instructions}",
    "choice": "根据以上内容回答问题，只回答一个选项，一字不差。\n问题：{instructions}\n选项：\n{options}",
    "score": "根据以上内容评级，只回答一个等级，等级从低到高排列。\n问题：{instructions}\n等级：\n{options}",
}
_UNLISTED = "根据以上内容回答问题，只回答一个词语。\n问题：{instructions}"


@dataclass(frozen=True)
class Option:
    """One answer there may be: what the model would say, and what that means. `kind` tells equal texts apart."""

    text: str
    description: str = ""
    kind: str = "str"

    @property
    def line(self) -> str:
        """As it stands in the question."""
        return f"- {self.text}：{self.description}" if self.description else f"- {self.text}"


@dataclass(frozen=True)
class Asked:
    """One question. `options` are a choice's in any order, a score's from low to high; a predicate has none."""

    kind: Literal["predicate", "choice", "score"]
    instructions: str
    options: tuple[Option, ...] = ()

    @property
    def laid_out(self) -> tuple[Option, ...]:
        """The options in the order in which the model reads them, which the caller's has no part in unless it means
        something."""
        if self.kind == "predicate":
            return (Option(_YES), Option(_NO))
        if self.kind == "score":
            return self.options
        return tuple(sorted(self.options, key=lambda option: (option.text, option.kind)))

    @property
    def wordings(self) -> list[str]:
        """What the model is asked, the best first. A list of choices that explains nothing can be left out."""
        options = "\n".join(option.line for option in self.laid_out)
        wordings = [_WORDINGS[self.kind].format(instructions=self.instructions, options=options)]
        if self.kind == "choice" and not any(option.description for option in self.options):
            wordings.append(_UNLISTED.format(instructions=self.instructions))
        return wordings


@dataclass(frozen=True)
class Decided:
    """Probabilities of a question's options in the caller's order (of a predicate: that it holds, that it does not),
    and the likeliest of them."""

    probabilities: tuple[float, ...]
    best: int

    @property
    def confidence(self) -> float:
        """0 where all options are equally likely, 1 where one is certain: (K * the highest - 1) / (K - 1)."""
        count = len(self.probabilities)
        return min(max((count * max(self.probabilities) - 1) / (count - 1), 0.0), 1.0)

    @property
    def expected(self) -> float:
        """The mean level, counted from 0."""
        return math.fsum(level * probability for level, probability in enumerate(self.probabilities))


class Decisions:
    """Answers questions on the service's engine. Thread-safe."""

    def __init__(self, service: AllInOne) -> None:
        self._service = service

    def decide(
        self,
        messages: Sequence[Message],
        questions: Sequence[Asked],
        *,
        deadline_s: float | None = None,
        watch: Watch = unwatched,
    ) -> tuple[list[Decided], Answer]:
        """Answers to `questions` about `messages`, in their order, and what they cost together.

        Raises:
            ContextExceeded, InvalidInput: the text, or the text with one question, is more than fits, or an order of
            roles that the model's template refuses. ServiceError: busy, not ready, too late, failed, given up.
        """
        with self._service.admitted(deadline_s, watch) as permit:
            texts = self._service.texts
            work = Decide(*_laid_out(messages, questions, texts), texts.context)
            result = result_of(self._service.engine.submit(work, permit=permit))
            decided = [_decided(asked, scores) for asked, scores in zip(questions, result.scores, strict=True)]
            return decided, Answer(DECISIONS, result)


def _laid_out(
    messages: Sequence[Message], questions: Sequence[Asked], texts: Texts
) -> tuple[list[int], list[Question]]:
    """The tokens that all prompts begin with, and what each question adds to them."""
    if all(is_blank(content) for _, content in messages):
        raise EmptyInput(param="input")
    encode = texts.tokenizer.encode
    options = [tuple(tuple(encode(option.text)) for option in asked.laid_out) for asked in questions]
    prompts = [
        _prompt(messages, number, asked, max(map(len, options[number])), texts)
        for number, asked in enumerate(questions)
    ]
    # One that asks otherwise from the first character on: of a single question too something must be left to ask.
    other = chat_ids([*messages, ("user", "Zq 7")], texts, "input")
    common = min(shared(other, ids) for ids in prompts)
    return other[:common], [Question(tuple(ids[common:]), of) for ids, of in zip(prompts, options, strict=True)]


def _prompt(messages: Sequence[Message], number: int, asked: Asked, longest_option: int, texts: Texts) -> list[int]:
    """The first wording of a question that fits with its longest option."""
    for wording in asked.wordings:
        with suppress(ContextExceeded):
            ids = chat_ids([*messages, ("user", wording)], texts, "input")
            if len(ids) + longest_option <= texts.context:
                return ids
    chat_ids([*messages, ("user", "?")], texts, "input")  # raises if it is the text that is too long
    raise ContextExceeded(
        f"input 加上第 {number + 1} 个问题和它最长的选项超过 {texts.context} 个 token，请缩短",
        param=f"questions[{number}]",
    )


def _decided(asked: Asked, scores: Sequence[float]) -> Decided:
    """Probabilities of the options: a softmax over their scores, brought back into the caller's order."""
    highest = max(scores)
    weights = [math.exp(score - highest) for score in scores]
    total = math.fsum(weights)
    likeliest = scores.index(highest)  # of equals the first as laid out, so that here too the caller's order is nothing
    given = asked.options or asked.laid_out
    places = {option: place for place, option in enumerate(asked.laid_out)}
    probabilities = tuple(weights[places[option]] / total for option in given)
    return Decided(probabilities, given.index(asked.laid_out[likeliest]))
