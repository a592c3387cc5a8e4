"""Probabilities that mean something: what the prompt prefers taken out, one temperature fitted. Numbers only.

Contextual calibration: Zhao et al. 2021, "Calibrate Before Use". Temperature scaling: Guo et al. 2017, "On
Calibration of Modern Neural Networks".
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

Probabilities = tuple[float, ...]

# A temperature beyond these says that the data are too few or all of one kind, not how sure the model is.
COLDEST, HOTTEST = 0.05, 20.0
_LEAST = 1e-300  # a probability that came out as 0 still has a logarithm
_HALVINGS = 60


def calibrated(probabilities: Sequence[float], prior: Sequence[float] | None, temperature: float) -> Probabilities:
    """`probabilities` of one answer, divided by `prior` (None: left as they are), then at `temperature`.

    The order of the labels changes by the prior only.
    """
    if prior is None and temperature == 1.0:
        return tuple(probabilities)
    scores = [math.log(max(p, _LEAST)) for p in probabilities]
    if prior is not None:
        scores = [score - math.log(max(p, _LEAST)) for score, p in zip(scores, prior, strict=True)]
    highest = max(scores)
    weights = [math.exp((score - highest) / temperature) for score in scores]
    total = sum(weights)
    return tuple(weight / total for weight in weights)


def mean(answers: Sequence[Sequence[float]]) -> Probabilities:
    """The mean of several answers' probabilities: with empty contents, what the prompt prefers by itself."""
    return tuple(sum(column) / len(answers) for column in zip(*answers, strict=True))


def fit_temperature(answers: Sequence[Sequence[float]], gold: Sequence[int]) -> float:
    """The temperature under which the right labels, given as indexes, are likeliest; within COLDEST..HOTTEST.

    The negative log-likelihood is convex in 1/T, so where its slope changes sign is found by halving.
    """
    scores = np.log(np.maximum(np.asarray(answers, dtype=np.float64), _LEAST))
    scores -= scores.max(axis=1, keepdims=True)
    right = scores[np.arange(len(gold)), np.asarray(gold)]

    def slope(inverse: float) -> float:
        weights = np.exp(scores * inverse)
        expected = (weights * scores).sum(axis=1) / weights.sum(axis=1)
        return float((expected - right).mean())

    low, high = math.log(1 / HOTTEST), math.log(1 / COLDEST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if slope(math.exp(middle)) < 0:  # still likelier when colder
            low = middle
        else:
            high = middle
    return math.exp(-(low + high) / 2)
