"""A model that can be checked by hand: its next token is a fixed function of all tokens before it.

It reads those tokens back from the KV cache, so a slot that holds the wrong ones gives a wrong reply, not just
a slow one. `Bench` runs it step by step without a thread.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from qwen_allinone.engine.contract import Loaded
from qwen_allinone.engine.drafts import Drafting
from qwen_allinone.engine.label_trie import LabelTrie
from qwen_allinone.engine.sampling import Sampling
from qwen_allinone.engine.scheduler import Scheduler
from qwen_allinone.engine.slots import SlotTable
from qwen_allinone.engine.step import step
from qwen_allinone.engine.ticket import Ticket
from qwen_allinone.engine.work import Classify, Generate, Work
from qwen_allinone.model.attention import Chunk
from qwen_allinone.model.kv import KVCache

VOCABULARY = 97


class FakeModel:
    """Stands in for `Qwen2`. `steps` records the chunks of each forward pass; `before` may block or raise.

    With `looks_back` its next token is a function of so many tokens before it only, so that replies go in circles.
    """

    def __init__(
        self,
        context: int = 64,
        before: Callable[[Sequence[Chunk]], None] | None = None,
        looks_back: int | None = None,
    ) -> None:
        self.context = context
        self.looks_back = looks_back
        self.before = before
        self.steps: list[list[Chunk]] = []

    def new_cache(self, slots: int) -> KVCache:
        return KVCache(layers=1, slots=slots, kv_heads=1, length=self.context, head_dim=2)

    def forward(self, chunks: Sequence[Chunk], cache: KVCache) -> Tensor:
        """The digest of each chunk's sequence up to each row that it wants, [rows, 1]."""
        if self.before:
            self.before(chunks)
        self.steps.append(list(chunks))
        digests = list[int]()
        for chunk in chunks:
            tokens = _write(chunk, cache)
            ends = [chunk.start + row + 1 for row in chunk.wanted]
            digests += [_digest(tokens[:end], self.looks_back) for end in ends]
        return torch.tensor(digests, dtype=torch.float32).view(-1, 1)

    def logits(self, hidden: Tensor) -> Tensor:
        tokens = torch.arange(VOCABULARY)
        mixed = hidden.long() * 7919 + tokens * 104_729 + tokens * tokens * 31
        return (mixed % 9973).float() / 1000

    def logits_of(self, hidden: Tensor, ids: Sequence[int]) -> Tensor:
        return self.logits(hidden)[..., list(ids)]

    @property
    def forwarded(self) -> int:
        """Tokens computed so far."""
        return sum(len(chunk.tokens) for chunks in self.steps for chunk in chunks)


def loaded(model: Any, prefixes: Sequence[Sequence[int]] = ()) -> Loaded[None]:
    """What a loader gives an engine for which there is nothing to publish."""
    return Loaded(model, lambda compute: None, prefixes)


class Bench:
    """A scheduler over a fake model, moved on by hand: `step()` is one step of the engine."""

    def __init__(
        self,
        *,
        slots: int = 4,
        context: int = 64,
        kv_tokens: int = 256,
        step_tokens: int = 16,
        share_tokens: int = 16,
        caller_slots: int = 87,
        shares: Mapping[str, int] = MappingProxyType({}),
        drafting: Drafting | None = None,
        looks_back: int | None = None,
    ) -> None:
        self.model = FakeModel(context, looks_back=looks_back)
        self.cache = self.model.new_cache(slots)
        self.slots = SlotTable(self.cache, slots, kv_tokens, caller_slots)
        self.scheduler = Scheduler(
            self.slots,
            step_tokens=step_tokens,
            longest=min(context, kv_tokens),
            share_tokens=share_tokens,
            shares=shares,
            drafting=drafting,
        )

    def submit(
        self,
        work: Work,
        deadline: float = math.inf,
        rank: int = 0,
        caller: str | None = None,
        *,
        behind: bool = False,
        priority: int = 0,
    ) -> Ticket:
        ticket = Ticket(work, deadline, rank, caller, behind, priority)
        self.scheduler.submit(ticket)
        return ticket

    def step(self) -> list[Chunk]:
        """One step; returns the chunks it computed."""
        before = len(self.model.steps)
        step(self.model, self.cache, self.scheduler)  # type: ignore[arg-type]
        return self.model.steps[before] if len(self.model.steps) > before else []

    def run(self, most_steps: int = 500) -> None:
        """Step until nothing is left."""
        while self.scheduler.waiting or self.scheduler.running:
            assert most_steps > 0, "the requests never end"
            most_steps -= 1
            self.step()
        self.slots.check_integrity()


def generate(prompt: Sequence[int], count: int, stop_ids: frozenset[int] = frozenset()) -> Generate:
    """Greedy free text."""
    return Generate(prompt, Sampling(max_new_tokens=count), stop_ids)


def classify(prompt: Sequence[int], labels: Sequence[Sequence[int]]) -> Classify:
    return Classify(prompt, LabelTrie(tuple(map(tuple, labels))))


def expected_reply(prompt: Sequence[int], count: int, stop_ids: frozenset[int] = frozenset()) -> tuple[int, ...]:
    """What greedy decoding of the fake model gives, computed the slow way. The first token is never a stop."""
    tokens = list(prompt)
    for number in range(count):
        scores = fake_logits(tokens)
        if number == 0:
            scores[sorted(stop_ids)] = -torch.inf
        token = int(scores.argmax())
        if token in stop_ids:
            break
        tokens.append(token)
    return tuple(tokens[len(prompt) :])


def expected_label(prompt: Sequence[int], labels: Sequence[Sequence[int]]) -> int:
    """The label that following the likeliest allowed token leads to, computed the slow way."""
    path: list[int] = []
    while tuple(path) not in (rows := [tuple(label) for label in labels]):
        allowed = dict.fromkeys(row[len(path)] for row in rows if list(row[: len(path)]) == path)
        scores = fake_logits([*prompt, *path])
        path.append(max(allowed, key=lambda token: float(scores[token])))
    return rows.index(tuple(path))


def fake_logits(tokens: Sequence[int]) -> Tensor:
    """Logits after `tokens`, [VOCABULARY]."""
    return FakeModel().logits(torch.tensor([float(_digest(tokens))]))


def _write(chunk: Chunk, cache: KVCache) -> list[int]:
    """Put the chunk into the cache; returns the slot's tokens up to its end."""
    positions = range(chunk.start, chunk.end)
    marks = torch.tensor([[[token, place]] for token, place in zip(chunk.tokens, positions, strict=True)]).float()
    cache.write(0, chunk.slot, chunk.start, marks, -marks)
    keys, values = cache.read(0, chunk.slot, chunk.end)
    assert keys[0, :, 1].tolist() == list(range(chunk.end)), f"slot {chunk.slot} holds other positions"
    assert torch.equal(keys, -values), f"slot {chunk.slot} holds values of other keys"
    return [int(token) for token in keys[0, :, 0].tolist()]


def _digest(tokens: Sequence[int], looks_back: int | None = None) -> int:
    digest = 17
    for token in tokens if looks_back is None else tokens[-looks_back:]:
        digest = (digest * 31 + token + 1) % 65_521
    return digest
