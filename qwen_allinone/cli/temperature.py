"""Fits a temperature to answers on labelled data, and says what it does to them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qwen_allinone.cli.asking import AnsweredRow
from qwen_allinone.cli.figures import Figures, Judged, figures_of
from qwen_allinone.errors import DataFileError
from qwen_allinone.service.label_answer import LEAST, calibrated, choose
from qwen_allinone.tasks import Task
from qwen_allinone.wording import said

# A temperature beyond these says that the data are too few or all of one kind, not how sure the model is.
COLDEST, HOTTEST = 0.05, 20.0
_EDGE = 1.02
_FEWEST_ROWS = 10
_HALVINGS = 60


@dataclass(frozen=True)
class FittedTemperature:
    """A temperature fitted to all rows, and figures without it and with it.

    `after` is not measured on what it was fitted to: each half of the rows has the temperature of the other half.
    """

    temperature: float
    before: Figures
    after: Figures

    @property
    def at_its_limit(self) -> bool:
        """The rows do not pin the temperature down, as where all answers are right."""
        return not COLDEST * _EDGE < self.temperature < HOTTEST / _EDGE


def fit(task: Task, answered: Sequence[AnsweredRow]) -> FittedTemperature:
    """Fit a temperature for `task` to the answers there are.

    Raises:
        DataFileError: too few of them.
    """
    if len(answered) < _FEWEST_ROWS:
        raise DataFileError(said("too_few_for_temperature", count=len(answered), fewest_rows=_FEWEST_ROWS))
    halves = [answered[0::2], answered[1::2]]
    one, other = (_temperature_of(task, half) for half in halves)
    after = [*_judged(task, halves[0], other), *_judged(task, halves[1], one)]
    return FittedTemperature(
        temperature=_temperature_of(task, answered),
        before=figures_of(_judged(task, answered, 1.0), task.labels),
        after=figures_of(after, task.labels),
    )


def fit_temperature(answers: Sequence[Sequence[float]], gold: Sequence[int]) -> float:
    """The temperature under which the right labels, given as indexes, are likeliest; within COLDEST..HOTTEST.

    The negative log-likelihood is convex in 1/T, so where its slope changes sign is found by halving.
    """
    scores = np.log(np.maximum(np.asarray(answers, dtype=np.float64), LEAST))
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


def _temperature_of(task: Task, answered: Sequence[AnsweredRow]) -> float:
    gold = [task.labels.index(each.row.label) for each in answered]
    return fit_temperature([each.plain for each in answered], gold)


def _judged(task: Task, answered: Sequence[AnsweredRow], temperature: float) -> list[Judged]:
    shares = [calibrated(each.plain, None, temperature) for each in answered]
    chosen = [choose(task.spec.output, given, given.index(max(given))).name for given in shares]
    right = [each.row.label for each in answered]
    return [Judged(*one) for one in zip(right, chosen, shares, strict=True)]
