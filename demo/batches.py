"""Texts -> padded id rows behind a shared prefix, with the positions that are learned from.

A row's ids are exactly those the service computes: prompt prefix + text + prompt suffix. `Prompts` checks that
the tokenizer cuts a prompt at those seams.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Generic, TypeVar

import torch
from torch import Tensor

from demo.corpus.generate import Generator, Triple
from demo.corpus.jobs.jobs import Jobs
from qwen_allinone.model.tokenizer import Tokenizer
from qwen_allinone.tasks import Task, clean, load_task, render

ROOT = Path(__file__).parents[1]
PLACE = "口"  # any text that is one token
TASKS = ("sentiment", "chat", "intent", "keywords", "summary", "translate", "sentiment_en", "route")
# The turns of the further tasks: what has to be written takes more practice than a label. An odd number of them, so
# that each of two processes comes to all.
TURNS = (
    "translate", "keywords", "summary", "sentiment_en", "translate", "keywords", "summary", "route",
    "translate", "keywords", "summary", "sentiment_en", "translate", "intent", "route",
)  # fmt: skip
# Nothing but repeating random tokens teaches a network of this size to copy, and what it writes is mostly copied. So it
# begins with such drills alone, at first of a few tokens (beside anything else they teach nothing), by the prompts of
# these tasks; for some time afterwards every second turn of the further tasks is one, lest it be forgotten.
DRILLED = ("summary", "keywords")
DRILL_ONLY_STEPS, DRILL_STEPS = 350, 800
DRILL_TOKENS = 2400  # a batch
SHORT, LONG = 4, 20  # tokens of a drill at most: at first, in the end
MASTERED = 1.5  # mean loss of drills that lets longer ones follow
LONGEST = 400
POOL = 1500
NAMED_WEIGHT = 3.0  # a reply's words taken from the text: without this, replies name a topic, but any topic
COMMON = "的，。！？了你我是这在一不,.!?心里让真好也都就有很"  # shared by chance

Item = TypeVar("Item")
Written = tuple[list[int], list[int]]  # a text, and what is to be written about it
Learned = tuple[int, int, int, float]  # row, position, token to predict, weight


@dataclass(frozen=True)
class Batch:
    """Rows [rows, length] to read behind `prefix`; what to predict at flat positions, and how much each counts.

    `filled` [rows, length] is 1 where a row has a token and 0 where it is padded.
    """

    prefix: Tensor
    rows: Tensor
    filled: Tensor
    positions: Tensor
    targets: Tensor
    weights: Tensor

    @property
    def tokens(self) -> int:
        return self.rows.numel()


class Prompts:
    """The taught tasks' prompts, cut around the text of the user."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.tasks = {name: load_task(ROOT / "prompts" / name) for name in TASKS}
        self.sentiment, self.chat = self.tasks["sentiment"], self.tasks["chat"]
        self.labels = {name: tokenizer.encode(name) for name in self.sentiment.labels}
        self.ends = (self._control("<|endoftext|>"), self._control("<|im_end|>"))

    def _control(self, token: str) -> int:
        found = self.tokenizer.control_id(token)
        assert found is not None, token
        return found

    def cut(self, task: Task, **fixed: str) -> tuple[list[int], list[int]]:
        """Ids before and after the user's text."""
        ids = self.tokenizer.encode_rendered(render(task, {"text": PLACE, **fixed}))
        [mark] = self.tokenizer.encode(PLACE)
        seam = len(ids) - 1 - ids[::-1].index(mark)
        return ids[:seam], ids[seam + 1 :]

    def answer(self, task: Task, answer: str) -> list[int]:
        """The ids a right answer begins with: a label's first, which tells labels apart, or the whole with its end."""
        ids = self.tokenizer.encode(answer)
        return ids[:1] if task.labels else [*ids, self.ends[1]]

    def check(self, text: str) -> None:
        """Prefix + text + suffix are the service's ids."""
        for task in self.tasks.values():
            fixed = {name: self.sentiment.labels[0] for name in task.spec.inputs if name != "text"}
            given = clean(text) if task.spec.clean else text
            before, after = self.cut(task, **fixed)
            whole = self.tokenizer.encode_rendered(render(task, {"text": given, **fixed}))
            assert before + self.tokenizer.encode(given) + after == whole, (task.name, text)


class Bucket(Generic[Item]):
    """Items in groups of similar length and about `tokens` tokens each: little padding, groups in random order."""

    def __init__(self, draw: Callable[[], Item], length: Callable[[Item], int], tokens: int, rng: Random) -> None:
        self.draw, self.length, self.tokens, self.rng = draw, length, tokens, rng
        self._groups: list[list[Item]] = []

    def take(self) -> list[Item]:
        """The next group."""
        if not self._groups:
            groups: list[list[Item]] = [[]]
            for item in sorted((self.draw() for _ in range(POOL)), key=self.length):
                if groups[-1] and (len(groups[-1]) + 1) * self.length(item) > self.tokens:
                    groups.append([])
                groups[-1].append(item)
            self.rng.shuffle(groups)
            self._groups = groups
        return self._groups.pop()


class Batches:
    """Draws batches from a generator; segmentation noise and token blur come from random numbers of their own."""

    def __init__(
        self, prompts: Prompts, generator: Generator, jobs: Jobs, seed: int, tokens: tuple[int, int, int]
    ) -> None:
        self.prompts, self.generator, self.jobs, self.rng = prompts, generator, jobs, Random(seed)
        self._texts = Bucket(self._text, lambda item: len(item[0]) + 4, tokens[0], self.rng)
        self._turns = {
            label: Bucket(partial(self._turn, label), lambda item: len(item[0]) + len(item[1]), tokens[1], self.rng)
            for label in prompts.labels
        }
        self._jobs = {task: self._bucket(partial(self._job, task), tokens[2]) for task in jobs.tasks}
        self._drills = {task: self._bucket(partial(self._drill, task), DRILL_TOKENS) for task in DRILLED}
        self._longest_drill = SHORT
        self._common = set(prompts.tokenizer.encode(COMMON))
        self._waiting: dict[str, list[Triple]] = {label: [] for label in prompts.labels}

    def _bucket(self, draw: Callable[[], Written], tokens: int) -> Bucket[Written]:
        return Bucket(draw, lambda item: len(item[0]) + len(item[1]) + 8, tokens, self.rng)

    def sentiment(self) -> Batch:
        """Labelled texts: the label is learned."""
        prefix, suffix = self.prompts.cut(self.prompts.sentiment)
        rows: list[list[int]] = []
        plan: list[Learned] = []
        for ids, label in self._texts.take():
            row = ids + suffix
            plan.append((len(rows), len(row) - 1, label, 1.0))
            rows.append(row)
        return self._batch(prefix, rows, plan)

    def chat(self, label: str) -> Batch:
        """Texts and replies of one label; every reply token and the end of turn are learned."""
        prefix, suffix = self.prompts.cut(self.prompts.chat, sentiment=label)
        rows: list[list[int]] = []
        plan: list[Learned] = []
        for ids, reply in self._turns[label].take():
            start = ids + suffix
            named = set(ids) - self._common
            plan += [
                (len(rows), len(start) - 1 + i, token, NAMED_WEIGHT if token in named else 1.0)
                for i, token in enumerate(reply)
            ]
            rows.append(start + reply[:-1])
        return self._batch(prefix, rows, plan)

    def job(self, name: str) -> Batch:
        """Texts and answers of one of the further tasks: a label's token, or every token of what is to be written."""
        return self._written(name, self._jobs[name])

    def drill(self, name: str, loss: float) -> Batch:
        """Random tokens and their copy, in the place of a text and the answer of the task `name`.

        `loss` is that of the drills before: when they are mastered, longer ones follow.
        """
        if loss < MASTERED:
            self._longest_drill = min(self._longest_drill + 1, LONG)
        return self._written(name, self._drills[name])

    def _written(self, name: str, source: Bucket[Written]) -> Batch:
        prefix, suffix = self.prompts.cut(self.prompts.tasks[name])
        rows: list[list[int]] = []
        plan: list[Learned] = []
        for ids, answer in source.take():
            start = ids + suffix
            plan += [(len(rows), len(start) - 1 + i, token, 1.0) for i, token in enumerate(answer)]
            rows.append(start + answer[:-1])
        return self._batch(prefix, rows, plan)

    def _job(self, name: str) -> Written:
        sample, task = self.jobs.draw(name), self.prompts.tasks[name]
        # What is written is copied or looked up token by token: only texts that are judged are blurred.
        ids = self._blur(self._encode(sample.text)) if task.labels else self.prompts.tokenizer.encode(sample.text)
        return ids[:LONGEST], self.prompts.answer(task, sample.answer)

    def _drill(self, name: str) -> Written:
        """A sentence to be repeated whole, or, for keywords, words between commas to be listed."""
        encode, end, top = self.prompts.tokenizer.encode, self.prompts.ends[1], self.prompts.ends[0]
        ids = [self.rng.randrange(256, top) for _ in range(self.rng.randint(1, self._longest_drill))]
        if name == "summary":
            ids += encode("。")
            return ids, [*ids, end]
        text, answer = list[int](), list[int]()
        for place, token in enumerate(ids):
            if place and self.rng.random() < 0.4:
                text += encode("，")
                answer += encode("、")
            text.append(token)
            answer.append(token)
        return text, [*answer, end]

    def _text(self) -> tuple[list[int], int]:
        text, label = self.generator.labelled()
        return self._blur(self._encode(clean(text))[:LONGEST]), self.prompts.labels[label][0]

    def _turn(self, label: str) -> tuple[list[int], list[int]]:
        waiting = self._waiting
        while not waiting[label]:
            triple = self.generator.triple()
            waiting[triple.label].append(triple)
        triple = waiting[label].pop()
        return self.prompts.tokenizer.encode(triple.text)[:LONGEST], [
            *self.prompts.tokenizer.encode(triple.reply),
            self.prompts.ends[1],
        ]

    def _encode(self, text: str) -> list[int]:
        """Ids of `text`, three times in ten cut into shorter pieces than need be: characters must mean something."""
        draw = self.rng.random()
        if draw > 0.3:
            return self.prompts.tokenizer.encode(text)
        share = 1.0 if draw < 0.06 else self.rng.random() * 0.5
        ids: list[int] = []
        start = 0
        for place in range(1, len(text) + 1):
            if place == len(text) or self.rng.random() < share:
                ids += self.prompts.tokenizer.encode(text[start:place])
                start = place
        return ids

    def _blur(self, ids: list[int]) -> list[int]:
        """In some texts a few tokens become random ones, or many are left out: no single word may decide."""
        draw = self.rng.random()
        if len(ids) > 12 and draw > 0.7:
            rate = self.rng.random() * 0.4
            return [token for token in ids if self.rng.random() > rate] or ids
        if len(ids) < 6 or draw > 0.3:
            return ids
        rate = self.rng.random() * 0.15
        top = self.prompts.ends[0]
        return [self.rng.randrange(256, top) if self.rng.random() < rate else token for token in ids]

    def _batch(self, prefix: list[int], rows: list[list[int]], plan: list[Learned]) -> Batch:
        length = max(map(len, rows))
        padded = [row + [self.prompts.ends[0]] * (length - len(row)) for row in rows]
        return Batch(
            torch.tensor(prefix),
            torch.tensor(padded),
            torch.tensor([[1.0] * len(row) + [0.0] * (length - len(row)) for row in rows]),
            torch.tensor([row * length + place for row, place, _, _ in plan]),
            torch.tensor([target for _, _, target, _ in plan]),
            torch.tensor([weight for _, _, _, weight in plan]),
        )
