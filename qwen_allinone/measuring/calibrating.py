"""Fits a temperature to answers on labelled data, and says what it does to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qwen_allinone.calibration import COLDEST, HOTTEST, Probabilities, calibrated, fit_temperature
from qwen_allinone.errors import DataFileError
from qwen_allinone.measuring.figures import Figures, Judged, figures_of
from qwen_allinone.measuring.run import Asked
from qwen_allinone.tasks import Task

_FEWEST_ROWS = 10
_EDGE = 1.02


@dataclass(frozen=True)
class Fitted:
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


def fit(task: Task, asked: Sequence[Asked]) -> Fitted:
    """Fit a temperature for `task` to the answers there are.

    Raises:
        DataFileError: too few of them.
    """
    if len(asked) < _FEWEST_ROWS:
        raise DataFileError(
            f"{len(asked)} answered rows are too few to fit a temperature to; give {_FEWEST_ROWS} or more"
        )
    halves = [asked[0::2], asked[1::2]]
    one, other = (_temperature_of(task, half) for half in halves)
    after = [*_judged(task, halves[0], other), *_judged(task, halves[1], one)]
    return Fitted(
        temperature=_temperature_of(task, asked),
        before=figures_of(_judged(task, asked, 1.0), task.labels),
        after=figures_of(after, task.labels),
    )


def _temperature_of(task: Task, asked: Sequence[Asked]) -> float:
    gold = [task.labels.index(each.row.label) for each in asked]
    return fit_temperature([each.plain for each in asked], gold)


def _judged(task: Task, asked: Sequence[Asked], temperature: float) -> list[Judged]:
    shares = [calibrated(each.plain, None, temperature) for each in asked]
    return [Judged(each.row.label, _answer(task, given), given) for each, given in zip(asked, shares, strict=True)]


def _answer(task: Task, shares: Probabilities) -> str:
    unknown = task.spec.output.unknown
    if unknown and max(shares) < unknown.below:
        return unknown.name
    return task.labels[shares.index(max(shares))]
