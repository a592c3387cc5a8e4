"""What the engine found for a label task becomes its answer.

The engine makes probabilities of the labels' logits (engine/label_trie.py). Here they come to mean something: what the
prompt prefers by itself is taken out, one temperature is applied; `at_least`, `unknown` and the labels' names are the
task's.

Contextual calibration: Zhao et al. 2021, "Calibrate Before Use". Temperature scaling: Guo et al. 2017, "On
Calibration of Modern Neural Networks".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from qwen_allinone.service.answer_types import Answer
from qwen_allinone.tasks import Label, Output, Task, Unknown

Probabilities = tuple[float, ...]

LEAST = 1e-300  # a probability that came out as 0 still has a logarithm


def with_label(answer: Answer, task: Task, prior: Probabilities | None, temperature: float) -> Answer:
    """`answer` with its label and the labels' probabilities; it has the engine's result, which chose one."""
    found, output = answer.result, task.spec.output
    assert found.label is not None
    shares = calibrated(found.probabilities, prior, temperature)
    # Without a prior the order is the engine's, which goes by tokens where labels share some.
    best = found.label if prior is None else shares.index(max(shares))
    probabilities = dict(zip(task.labels, shares, strict=True))
    chosen = choose(output, shares, best)
    emoji = chosen.emoji if isinstance(chosen, Label) else None
    return replace(answer, probabilities=probabilities, label=chosen.name, emoji=emoji)


def choose(output: Output, shares: Sequence[float], best: int) -> Label | Unknown:
    """The answer of a label task whose labels have these probabilities; `best` is the likeliest one's place."""
    for label, share in zip(output.labels, shares, strict=True):
        if label.at_least is not None and share >= label.at_least:
            return label
    if output.unknown and max(shares) < output.unknown.below:
        return output.unknown
    return output.labels[best]


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
