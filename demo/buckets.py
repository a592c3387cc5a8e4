"""Groups of items of similar length: little padding, and all items come once before any comes twice."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

POOL = 1500  # items that are put into groups at a time


class Bucket:
    """Numbers of items in groups of similar length and about `tokens` tokens each, in random order."""

    def __init__(self, lengths: Sequence[int], tokens: int, rng: Random) -> None:
        self._lengths, self._tokens, self._rng = lengths, tokens, rng
        self.left: list[int] = []  # of this round through all items
        self.groups: list[list[int]] = []

    def take(self) -> list[int]:
        """The next group."""
        if not self.groups:
            self._group(self._draw())
        return self.groups.pop()

    def _draw(self) -> list[int]:
        while len(self.left) < min(POOL, len(self._lengths)):
            more = list(range(len(self._lengths)))
            self._rng.shuffle(more)
            self.left = [*more, *self.left]
        drawn, self.left = self.left[-POOL:], self.left[:-POOL]
        return drawn

    def _group(self, numbers: list[int]) -> None:
        groups: list[list[int]] = [[]]
        for number in sorted(numbers, key=lambda n: self._lengths[n]):
            if groups[-1] and (len(groups[-1]) + 1) * self._lengths[number] > self._tokens:
                groups.append([])
            groups[-1].append(number)
        self._rng.shuffle(groups)
        self.groups = groups
