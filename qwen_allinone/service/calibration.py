"""Probabilities that mean something: what the prompt prefers taken out, one temperature fitted. Numbers only.

Contextual calibration: Zhao et al. 2021, "Calibrate Before Use". Temperature scaling: Guo et al. 2017, "On
Calibration of Modern Neural Networks".
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Probabilities = tuple[float, ...]

LEAST = 1e-300  # a probability that came out as 0 still has a logarithm


def calibrated(probabilities: Sequence[float], prior: Sequence[float] | None, temperature: float) -> Probabilities:
    """`probabilities` of one answer, divided by `prior` (None: left as they are), then at `temperature`.

    The order of the labels changes by the prior only.
    """
    if prior is None and temperature == 1.0:
        return tuple(probabilities)
    scores = [math.log(max(p, LEAST)) for p in probabilities]
    if prior is not None:
        scores = [score - math.log(max(p, LEAST)) for score, p in zip(scores, prior, strict=True)]
    highest = max(scores)
    weights = [math.exp((score - highest) / temperature) for score in scores]
    total = sum(weights)
    return tuple(weight / total for weight in weights)


def mean(answers: Sequence[Sequence[float]]) -> Probabilities:
    """The mean of several answers' probabilities: with empty contents, what the prompt prefers by itself."""
    return tuple(sum(column) / len(answers) for column in zip(*answers, strict=True))
