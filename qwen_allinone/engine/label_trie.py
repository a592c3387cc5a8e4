"""Decoding that can only end in one of a set of labels.

The labels' token ids form a trie. Where the first tokens differ, one forward pass decides and gives each
label its probability; only labels that share tokens take further passes, one for each node with a choice.

What comes out is a number and its probabilities. The label's name, the prior, the temperature and `unknown` are the
task's: service/label_answer.py. `Classify` in work.py asks for the passes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor


class LabelTrie:
    """The token ids of two labels or more, none the beginning of another. Nothing changes once it is made."""

    def __init__(self, labels: Sequence[tuple[int, ...]]) -> None:
        """Raises ValueError for labels that could not be told apart."""
        self.labels = tuple(labels)
        if len(self.labels) < 2:
            raise ValueError("a choice needs two labels or more")
        for label in self.labels:
            if not label or sum(other[: len(label)] == label for other in self.labels) != 1:
                raise ValueError(f"label ids {label} are empty, twice there or the beginning of another label")
        self.longest = max(map(len, self.labels))

    def next_ids(self, path: Sequence[int]) -> tuple[int, ...]:
        """The tokens that may follow `path`, in the order of the labels."""
        depth = len(path)
        following = (label[depth] for label in self.labels if label[:depth] == tuple(path) and len(label) > depth)
        return tuple(dict.fromkeys(following))

    @cached_property
    def branches(self) -> dict[tuple[int, ...], tuple[int, ...]]:
        """Paths after which there is a choice and the tokens to choose from, in depth-first order.

        A forced token needs no pass.
        """
        prefixes = sorted({label[:depth] for label in self.labels for depth in range(len(label))})
        choices = {path: self.next_ids(path) for path in prefixes}
        return {path: ids for path, ids in choices.items() if len(ids) > 1}


def share_of(ids: Sequence[int], logits: Tensor) -> float:
    """How much of the probability of the whole vocabulary, whose logits are [tokens], falls on `ids`; 0 to 1."""
    everything = logits.double()
    return min(1.0, math.exp(float(everything[list(ids)].logsumexp(-1) - everything.logsumexp(-1))))


class LabelScores:
    """Collects log-probabilities over the branches of a trie."""

    def __init__(self, trie: LabelTrie) -> None:
        self._trie = trie
        self._scores: dict[tuple[int, ...], dict[int, float]] = {}

    def add(self, path: tuple[int, ...], logits: Tensor) -> None:
        """Take the logits of `trie.next_ids(path)`, [choices]."""
        log_probabilities = torch.log_softmax(logits.float(), -1).tolist()
        self._scores[path] = dict(zip(self._trie.branches[path], log_probabilities, strict=True))

    def greedy(self) -> int:
        """Index of the label that following the likeliest token at each branch leads to."""
        path: tuple[int, ...] = ()
        while path not in self._trie.labels:
            choices = self._trie.next_ids(path)
            scores = self._scores.get(path, {})
            path += (max(choices, key=lambda token: scores.get(token, 0.0)),)
        return self._trie.labels.index(path)

    def probabilities(self) -> tuple[float, ...]:
        """Probability of each label given that one of them is the answer; they sum to 1."""
        totals = []
        for label in self._trie.labels:
            steps = ((label[:depth], label[depth]) for depth in range(len(label)))
            totals.append(sum(self._scores[path][token] for path, token in steps if path in self._scores))
        return tuple(map(math.exp, totals))
