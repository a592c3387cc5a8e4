"""Draws replies of a model, many at a time, with the service's own forward pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from qwen_allinone.engine.slots import common_prefix
from qwen_allinone.model import checkpoint
from qwen_allinone.model.attention import Chunk

SLOTS = 96
LONGEST = 56  # tokens of a reply; one that is longer is left out
_LIKELY = 64  # tokens to draw from at most


@dataclass
class _Row:
    """A reply in the making: to which prompt, and the slot's length so far."""

    prompt: int
    length: int
    ids: list[int] = field(default_factory=list)


class Drawer:
    """Of a model in a folder; always the same for a `seed`."""

    def __init__(self, model: Path, *, context: int = 640, seed: int = 7) -> None:
        loaded = checkpoint.load(str(model), "main", "fp32", context)
        self.tokenizer, self._model, self._context = loaded.tokenizer, loaded.model, context
        self._cache = loaded.model.new_cache(SLOTS)
        self._ends = {self.tokenizer.control_id(token) for token in ("<|im_end|>", "<|endoftext|>")}
        self._generator = torch.Generator().manual_seed(seed)
        self._last: tuple[Sequence[int], list[tuple[Tensor, Tensor]]] = ((), [])

    def replies(
        self, prompts: Iterable[Sequence[int]], count: int, temperature: float, top_p: float
    ) -> Iterator[tuple[int, list[str]]]:
        """Of each of `prompts` its number and up to `count` different replies, as they are ready; a prompt is asked for
        when there is room for it."""
        left, free, said = enumerate(prompts), list(range(SLOTS)), dict[int, list[str | None]]()
        rows = dict[int, _Row]()
        while True:
            begun = list[tuple[list[int], int, int]]()
            chunks = list[Chunk]()
            while len(free) >= count and (new := next(left, None)):
                slots, free = free[:count], free[count:]
                chunks.append(self._begin(slots[0], new[1]))
                begun.append((slots, new[0], len(new[1])))
            chunks += [Chunk(slot, row.length, row.ids[-1:]) for slot, row in rows.items()]
            if not chunks:
                return
            scores = self._model.logits(self._model.forward(chunks, self._cache))
            for row in rows.values():
                row.length += 1
            fresh = dict[int, _Row]()
            for (slots, number, length), chunk in zip(begun, chunks, strict=False):
                self._spread(slots, chunk, length)
                fresh |= {slot: _Row(number, length) for slot in slots}
                said[number] = []
            of = torch.arange(len(begun)).repeat_interleave(count)
            scores = torch.cat([scores[: len(begun)][of], scores[len(begun) :]])
            rows = fresh | rows
            for (slot, row), token in zip(list(rows.items()), self._draw(scores, temperature, top_p), strict=True):
                row.ids.append(token)
                if token in self._ends or len(row.ids) >= LONGEST:
                    ended = row.ids[-1] in self._ends
                    said[row.prompt].append(self.tokenizer.decode(row.ids[:-1]) if ended else None)
                    del rows[slot]
                    free.append(slot)
                    if len(said[row.prompt]) == count:
                        texts = (" ".join(text.split()) for text in said.pop(row.prompt) if text)
                        yield row.prompt, list(dict.fromkeys(filter(None, texts)))

    def _begin(self, slot: int, prompt: Sequence[int]) -> Chunk:
        """To be computed: what the prompt has not in common with the one before."""
        if len(prompt) + LONGEST > self._context:
            raise ValueError(f"a prompt of {len(prompt)} tokens")
        known, saved = self._last
        shared = min(common_prefix(known, prompt), len(prompt) - 1)
        if shared:
            self._cache.copy_in(slot, saved, shared)
        return Chunk(slot, shared, prompt[shared:])

    def _spread(self, slots: Sequence[int], chunk: Chunk, length: int) -> None:
        """The keys and values of a prompt into the slots of all its replies."""
        saved = self._cache.copy_out(slots[0], length)
        for slot in slots[1:]:
            self._cache.copy_in(slot, saved, length)
        known, _ = self._last
        self._last = ((*known[: chunk.start], *chunk.tokens), saved)

    def _draw(self, scores: Tensor, temperature: float, top_p: float) -> list[int]:
        likely, ids = (scores / temperature).softmax(-1).topk(_LIKELY)
        likely = likely.where(likely.cumsum(-1) - likely < top_p, 0.0)
        return ids.gather(1, torch.multinomial(likely, 1, generator=self._generator)).squeeze(1).tolist()
