"""Typed questions about one text, answered with probabilities by ordinary chat weights. No Flask, no torch.

The text is a message of its own and each question is the message after it. An option is scored by the log-probability
of its tokens as what the model would say next. Choices stand in the question in an order of their own, not in the
caller's, so shuffling them changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from qwen_allinone.engine import Question, Result, ScoreOptions
from qwen_allinone.engine.slots import common_prefix
from qwen_allinone.errors import ContextExceeded, EmptyInput
from qwen_allinone.model.tokenizer import Gap
from qwen_allinone.service.answer_types import Answer, Terms
from qwen_allinone.service.codec import Codec
from qwen_allinone.service.completions import Utterance, chat_ids, chat_layout
from qwen_allinone.service.request import Request
from qwen_allinone.service.service import Service
from qwen_allinone.tasks import MOST_CHARS_PER_TOKEN, is_blank
from qwen_allinone.wording import said

# What telemetry calls these answers, which come of no task.
DECISIONS = "decisions"
# How many contexts' characters all questions of a call may have together; the options of one may have one context's.
_MOST_CONTEXTS = 8
_PIECE_CHARACTERS = 1_000  # of questions that are encoded without a rest between them

# How options of different lengths are compared, see `compare`.
Rule = Literal["mean", "sum", "gain"]
RULE: Rule = "mean"

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


@dataclass(frozen=True)
class TypedQuestion:
    """One question. `options` are a choice's in any order, a score's from low to high; a predicate has none."""

    kind: Literal["predicate", "choice", "score"]
    instructions: str
    options: tuple[Option, ...] = ()

    @cached_property
    def in_prompt(self) -> tuple[Option, ...]:
        """The options in the order in which the model reads them: choices sorted, score levels as given."""
        if self.kind == "predicate":
            return (Option(_YES), Option(_NO))
        if self.kind == "score":
            return self.options
        return tuple(sorted(self.options, key=lambda option: (option.text, option.kind)))

    @property
    def wordings(self) -> list[str]:
        """What the model is asked, the best first. A list of choices that explains nothing can be left out."""
        lines = [f"- {o.text}：{o.description}" if o.description else f"- {o.text}" for o in self.in_prompt]
        options = "\n".join(lines)
        wordings = [_WORDINGS[self.kind].format(instructions=self.instructions, options=options)]
        if self.kind == "choice" and not any(option.description for option in self.options):
            wordings.append(_UNLISTED.format(instructions=self.instructions))
        return wordings


@dataclass(frozen=True)
class OptionScores:
    """Of one question: the log-probability of each option, and its tokens, in the order of the prompt."""

    log_probabilities: tuple[float, ...]
    options: tuple[tuple[int, ...], ...]


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


def decide(
    service: Service,
    messages: Sequence[Utterance],
    questions: Sequence[TypedQuestion],
    terms: Terms,
    param: str = "input",
) -> tuple[list[Decided], Answer]:
    """Answers to `questions` about `messages`, in their order, and what they cost together. Errors name `param`.

    Raises:
        ContextExceeded, InvalidInput: the text, or the text with one question, is more than fits, or an order of
        roles that the model's template refuses. ServiceError: busy, not ready, too late, failed, given up.
    """
    if all(is_blank(content) for _, content in messages):
        raise EmptyInput(param=param)
    with service.request(terms) as request:
        scored, result = score_options(request, messages, questions, param)
        decided, said = [], list[int]()
        for question, scores in zip(questions, scored, strict=True):
            points = compare(scores)
            decided.append(_decided(question, points))
            said += scores.options[points.index(max(points))]
        answer = Answer(DECISIONS, replace(result, ids=tuple(said)), model_id=request.codec.model_id)
        terms.answers.append(answer)
        return decided, answer


def compare(scores: OptionScores, *, rule: Rule = RULE, alone: OptionScores | None = None) -> list[float]:
    """How well each option answers its question, see docs/decisions.md.

    `mean` is the log-probability per token, which favours long options: their last tokens follow from their first.
    `sum` is that of all tokens, which favours short ones. `gain` is the sum less what the option scores `alone`, after
    the question without the text: what the text adds.
    """
    if rule == "mean":
        return [total / len(ids) for total, ids in zip(scores.log_probabilities, scores.options, strict=True)]
    if rule == "sum":
        return list(scores.log_probabilities)
    if alone is None:
        raise ValueError("gain is measured against the scores without the text")
    return [total - own for total, own in zip(scores.log_probabilities, alone.log_probabilities, strict=True)]


def score_options(
    request: Request, messages: Sequence[Utterance], questions: Sequence[TypedQuestion], param: str = "input"
) -> tuple[list[OptionScores], Result]:
    """What the options of each question score after `messages`; raises as `decide`."""
    is_long = _characters(questions, request.codec.context) > _PIECE_CHARACTERS
    encode = request.codec.tokenizer.encode
    prompts = _Prompts(messages, request.codec, param)
    asked, options = list[list[int]](), list[tuple[tuple[int, ...], ...]]()
    for part in _pieces(questions):
        request.permit.check()  # long texts take the tokenizer a while: whoever has left meanwhile is not served
        with request.piece() if is_long else nullcontext():
            for number in part:
                options.append(tuple(tuple(encode(option.text)) for option in questions[number].in_prompt))
                asked.append(prompts.encode(number, questions[number], max(map(len, options[number]))))
            if len(asked) == len(questions):
                # What the first and the last in order have in common, all have.
                together = [prompts.lead, *asked]
                common = common_prefix(min(together), max(together))
                text = [*prompts.before, *prompts.lead[:common]]
                ends = [Question(tuple(ids[common:]), of) for ids, of in zip(asked, options, strict=True)]
                work = ScoreOptions(text, ends, request.codec.context)
    [result] = request.compute(DECISIONS, [work])
    return list(map(OptionScores, result.scores, options)), result


def _pieces(questions: Sequence[TypedQuestion]) -> list[list[int]]:
    """The numbers of the questions, as many together as are encoded in about a millisecond."""
    pieces, room = list[list[int]](), 0
    for number, question in enumerate(questions):
        size = len(question.instructions) + sum([len(option.text) for option in question.options])
        if size > room:
            pieces.append([])
            room = _PIECE_CHARACTERS
        pieces[-1].append(number)
        room -= size
    return pieces


def _characters(questions: Sequence[TypedQuestion], context: int) -> int:
    """How long all questions are together; told before a word is encoded.

    Raises:
        ContextExceeded: they would take a slot many times over.
    """
    most, total = context * MOST_CHARS_PER_TOKEN, 0
    for number, question in enumerate(questions):
        size = sum([len(option.text) for option in question.options])
        if size > most:
            field = f"questions[{number}].{'levels' if question.kind == 'score' else 'choices'}"
            raise ContextExceeded(said("question_too_long", field=field, size=size, most=most), param=field)
        total += len(question.instructions) + size
    if total > most * _MOST_CONTEXTS:
        problem = said("questions_too_long", total=total, most=most * _MOST_CONTEXTS)
        raise ContextExceeded(problem, param="questions")
    return total


class _Prompts:
    """The prompts of all questions about the same messages, which are encoded once.

    All begin with `before`, the template up to a control token. What stands between that and a question is `lead`; it
    is encoded with each question, for its last token may hold the question's first characters too.
    """

    def __init__(self, messages: Sequence[Utterance], codec: Codec, param: str) -> None:
        self._messages, self._param = messages, param
        self._codec = codec
        self._contents = [content for _, content in messages]
        self._most_characters = codec.context * MOST_CHARS_PER_TOKEN - sum(map(len, self._contents))
        layout = chat_layout([*messages, ("user", "")], codec, param)
        cut, gap = next(
            (at, part) for at, part in enumerate(layout) if isinstance(part, Gap) and len(messages) in part.parts
        )
        self.before = codec.tokenizer.encode_layout(layout[:cut], self._contents)
        ahead = gap.parts[: gap.parts.index(len(messages))]
        texts = [part if isinstance(part, str) else self._contents[part] for part in ahead]
        self.lead = codec.tokenizer.encode("".join(texts))
        self._rest = layout[cut:]

    def encode(self, number: int, question: TypedQuestion, longest_option: int) -> list[int]:
        """What follows `before`: a question in the first of its wordings that fits with its longest option."""
        context = self._codec.context
        for wording in question.wordings:
            if len(wording) <= self._most_characters:
                ids = self._codec.tokenizer.encode_layout(self._rest, [*self._contents, wording])
                if len(self.before) + len(ids) + longest_option <= context:
                    return ids
        chat_ids(
            [*self._messages, ("user", "?")], self._codec, self._param
        )  # raises if it is the text that is too long
        raise ContextExceeded(
            said("question_context", param=self._param, number=number + 1, context=context),
            param=f"questions[{number}]",
        )


def _decided(question: TypedQuestion, scores: Sequence[float]) -> Decided:
    """Probabilities of the options: a softmax over their scores, brought back into the caller's order."""
    highest = max(scores)
    weights = [math.exp(score - highest) for score in scores]
    total = math.fsum(weights)
    likeliest = question.in_prompt[scores.index(highest)]  # ties go to the first in prompt order
    given = question.options or question.in_prompt
    shares = {option: weight / total for option, weight in zip(question.in_prompt, weights, strict=True)}
    return Decided(tuple([shares[option] for option in given]), given.index(likeliest))
