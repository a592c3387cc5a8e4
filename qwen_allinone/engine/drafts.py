"""Drafts: what a reply may go on with, so that one step gives several of its tokens.

Summaries, key words, JSON and quotes repeat pieces of what came before. Where the last tokens of a sequence were seen
before, what followed them there is computed along with the last one (prompt lookup decoding, Saxena 2023). Each token
is still chosen from the logits at its own place, in order, and what follows a wrong guess is thrown away (speculative
decoding, arXiv:2211.17192): drafts decide how many steps a reply takes, never what it says.

A step of decoding waits for the weights, so that a few rows more cost little; how little, `price_of_a_row` measures.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from qwen_allinone.model.attention import Chunk
from qwen_allinone.model.kv import KVCache
from qwen_allinone.model.qwen2 import Qwen2

# Rows of a step with drafts: beyond, products take about as long as their rows are many.
MOST_ROWS = 12
MOST_TOKENS = 8  # of one draft
_FIRST_TOKENS = 4  # of a request's first draft
# How many tokens are looked for: three that were seen before say more of what follows than two.
_SIZES = (3, 2)
# A row that costs so much of a token, or more, is left out: of a draft of eight, over two would have to be right.
_DEAREST = 0.3
# What a row costs at least: times that differ by less are noise.
_CHEAPEST = 0.02
# Steps' worth of time that a request may lose to wrong drafts before it makes no more.
_CREDIT = 1.0
# How a row's price is found: steps of so many rows, so many tokens behind them, in rounds.
_TRIED_ROWS = (1, 5, 9)
_BEHIND = 128
_LEAST_ROUNDS, _MOST_ROUNDS, _ENOUGH_S = 3, 20, 0.5


@dataclass(frozen=True)
class Drafting:
    """Whether drafts pay here. `price`: what each row more adds to a step of one row, as a share of that step."""

    price: float

    @property
    def pays(self) -> bool:
        return self.price < _DEAREST

    def price_among(self, requests: int) -> float | None:
        """What a row of a draft costs, in tokens, while each step gives a token to so many requests, who all wait for
        it. None: too much."""
        price = requests * self.price / (1 + (requests - 1) * self.price)
        return price if price < _DEAREST else None


class Drafter:
    """Makes the drafts of one request, as long as they pay. Not thread-safe."""

    def __init__(self) -> None:
        self.drafted = 0  # tokens
        self.accepted = 0  # of them, each a step that was not needed
        self._after = dict[tuple[int, ...], int]()  # where that goes on which follows some tokens
        self._noted = 0  # places that are in it
        self._length = _FIRST_TOKENS
        self._credit = _CREDIT

    def draft(self, tokens: Sequence[int], most: int) -> list[int]:
        """At most `most` tokens that may follow `tokens`, which only ever grow from call to call; mostly none."""
        if most < 1 or self._credit < 0:
            return []
        self._note(tokens)
        for size in _SIZES:
            place = self._after.get(tuple(tokens[-size:]))
            if place is not None:
                period = len(tokens) - place  # what repeats itself up to the end goes on doing so
                return [tokens[place + step % period] for step in range(min(self._length, most))]
        return []

    def judge(self, drafted: int, accepted: int, price: float) -> None:
        """Learn how a draft of `drafted` tokens fared whose rows cost `price` tokens each."""
        self.drafted += drafted
        self.accepted += accepted
        self._credit = min(self._credit + accepted - price * drafted, _CREDIT)
        if accepted == drafted:
            self._length = min(2 * self._length, MOST_TOKENS)
        elif not accepted:
            self._length = max(self._length // 2, 1)
        if self._credit < 0:
            self._after.clear()

    def _note(self, tokens: Sequence[int]) -> None:
        """Note what each place follows, but for the end, which nothing follows yet. The last place counts."""
        end = len(tokens)
        for size in _SIZES:
            first = max(self._noted, size)
            recent = tokens[first - size :]
            groups = zip(*(recent[skipped:] for skipped in range(size)), strict=False)
            self._after.update(zip(groups, range(first, end), strict=False))
        self._noted = end


def price_of_a_row(model: Qwen2, cache: KVCache, clock: Callable[[], float] = time.perf_counter) -> float:
    """What each row more adds to a step of one row, as a share of that step, here and now. `cache` must be unused.

    Of each number of rows the least time of several rounds counts, and of the numbers the dearest: what else runs
    meanwhile makes drafts look dear rather than cheap, unless it runs all the time.
    """
    start = min(_BEHIND, model.context - _TRIED_ROWS[-1])
    least = dict.fromkeys(_TRIED_ROWS, math.inf)
    began, rounds = clock(), 0
    while rounds < _LEAST_ROUNDS or (rounds < _MOST_ROUNDS and clock() - began < _ENOUGH_S):
        for rows in _TRIED_ROWS:
            chunk = Chunk(0, start, [0] * rows, wants_last=rows)
            before = clock()
            model.logits(model.forward([chunk], cache))
            least[rows] = min(least[rows], clock() - before)
        rounds += 1
    cache.discard(0)
    alone = least.pop(1)
    return max(_CHEAPEST, *((took / alone - 1) / (rows - 1) for rows, took in least.items()))
