"""Slots: where running requests keep their keys and values, and what finished ones leave for the next.

A finished slot remembers its tokens; a new request takes the free slot of its own caller that shares the longest
prefix with it. What others have asked is no use to it: the time it saved would tell that they did. The prompt prefixes
of the tasks are kept apart, once, for all, and copied in where no slot has more.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from qwen_allinone.model.kv import KVCache, Saved

# One part in so many of the slots' memory is kept for callers who have none.
_KEPT_MEMORY = 4


@dataclass
class Slot:
    """One row of the KV cache. `tokens` are those whose keys and values it holds, asked by `caller`, computed with
    `adapter`."""

    index: int
    tokens: list[int] = field(default_factory=list)
    busy: bool = False
    held: int = 0  # tokens of memory: the most ever written since the slot was last emptied, or promised
    used_at: int = 0
    caller: str | None = None
    adapter: str | None = None


@dataclass(frozen=True)
class Prefix:
    """A prompt prefix: the tokens that all prompts of a task begin with, and a copy of their keys and values.

    They are of use to those only who compute with the same adapter.
    """

    tokens: tuple[int, ...]
    saved: Saved
    adapter: str | None = None


class SlotTable:
    """Hands out slots within a budget of `kv_tokens` over all of them, and at most `caller_slots` percent of them to a
    caller."""

    def __init__(self, cache: KVCache, count: int, kv_tokens: int, caller_slots: int = 87) -> None:
        self._cache = cache
        self._slots = [Slot(index) for index in range(count)]
        self._kv_tokens = kv_tokens
        self._kept = count * (100 - caller_slots) // 100  # for others
        self._prefixes: list[Prefix] = []
        self._clock = itertools.count(1)

    def acquire(
        self, tokens: Sequence[int], most_tokens: int, caller: str | None = None, adapter: str | None = None
    ) -> Slot | None:
        """A free slot for a request of `caller` that begins with `tokens` and grows to `most_tokens`.

        It is to be computed with `adapter`: what others have computed is no use to it.

        Its `tokens` are what need not be computed again: at least the last of `tokens` is left to compute.
        None if no slot is free or the memory is promised to running requests.
        """
        free = [slot for slot in self._slots if not slot.busy]
        if not free or self._promised() + most_tokens > self._kv_tokens:
            return None
        prefixes = [prefix for prefix in self._prefixes if prefix.adapter == adapter]
        prefix = max(prefixes, key=lambda p: common_prefix(p.tokens, tokens), default=None)
        from_prefix = common_prefix(prefix.tokens, tokens) if prefix else 0
        best = max(free, key=lambda slot: (_shared(slot, tokens, caller, adapter), -slot.used_at))
        if _shared(best, tokens, caller, adapter) <= from_prefix:
            # Nothing more to gain from any slot than from the prefix: spare the memories used last.
            best = min(free, key=lambda slot: (bool(slot.tokens), slot.used_at))
        self._make_room(best, most_tokens)
        own = _shared(best, tokens, caller, adapter)
        reuse = min(max(own, from_prefix), len(tokens) - 1)
        if prefix and own < reuse:
            self._cache.copy_in(best.index, prefix.saved, reuse)
        best.tokens = list(tokens[:reuse])
        best.busy, best.caller, best.adapter = True, caller, adapter
        if best.held > most_tokens:
            # A running slot promises what it holds: give back what this request cannot use.
            self._cache.discard(best.index, keep=most_tokens)
        best.held = most_tokens
        return best

    def leaves_room(self, caller: str | None, most_tokens: int, others: int = 0) -> bool:
        """Whether others find a slot, and memory for a short request, if `caller` gets one more of `most_tokens`.

        `others`: how many of them are about: one slot is kept, and one more for each of them, but half of the slots at
        most. Who has none is never kept waiting for that, nor is it asked where there are no callers to tell apart.
        """
        own = [slot.held for slot in self._slots if slot.busy and slot.caller == caller]
        if caller is None or not own:
            return True
        count = len(self._slots)
        kept = max(self._kept, min(1 + others, count // 2), 1)
        enough = len(own) < count - kept
        return enough and sum(own) + most_tokens <= self._kv_tokens - self._kv_tokens // _KEPT_MEMORY

    def release(self, slot: Slot) -> None:
        """Free `slot`; what it holds stays until its memory or the slot is needed."""
        slot.busy = False
        slot.used_at = next(self._clock)

    def forget(self, slot: Slot) -> None:
        """Free `slot` and give its memory back: after a failed step its content cannot be trusted."""
        self._cache.discard(slot.index)
        slot.tokens, slot.held, slot.busy = [], 0, False

    def forget_idle(self) -> None:
        """Forget what the free slots hold and give its memory back."""
        for slot in self._slots:
            if not slot.busy:
                self.forget(slot)

    def remember_prefix(self, slot: Slot) -> None:
        """Keep a copy of what `slot` holds for all requests with the same prefix."""
        saved = self._cache.copy_out(slot.index, len(slot.tokens))
        self._prefixes.append(Prefix(tuple(slot.tokens), saved, slot.adapter))

    @property
    def busy(self) -> int:
        return sum(slot.busy for slot in self._slots)

    def check_integrity(self) -> None:
        """Raise AssertionError if the books are wrong; tests call this when the engine is idle."""
        assert self._promised() <= self._kv_tokens
        assert all(len(slot.tokens) <= slot.held for slot in self._slots)
        assert sum(slot.held for slot in self._slots) <= self._kv_tokens

    def _promised(self) -> int:
        return sum(slot.held for slot in self._slots if slot.busy)

    def _make_room(self, chosen: Slot, most_tokens: int) -> None:
        """Empty free slots, least recently used first, until the budget holds `most_tokens` in `chosen`."""
        idle = (slot for slot in self._slots if not slot.busy and slot is not chosen and slot.held)
        for slot in sorted(idle, key=lambda slot: slot.used_at):
            if self._held_with(chosen, most_tokens) <= self._kv_tokens:
                return
            self.forget(slot)
        if self._held_with(chosen, most_tokens) > self._kv_tokens:
            self.forget(chosen)

    def _held_with(self, chosen: Slot, most_tokens: int) -> int:
        others = sum(slot.held for slot in self._slots if slot is not chosen)
        return others + most_tokens


def _shared(slot: Slot, tokens: Sequence[int], caller: str | None, adapter: str | None) -> int:
    """How many of the tokens that a slot holds are of use to `caller`, who computes with `adapter`."""
    return common_prefix(slot.tokens, tokens) if (slot.caller, slot.adapter) == (caller, adapter) else 0


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens `a` and `b` have in common from the start."""
    count = 0
    for left, right in zip(a, b, strict=False):
        if left != right:
            break
        count += 1
    return count
