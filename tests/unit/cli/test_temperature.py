"""The temperature that is fitted to labelled answers."""

from __future__ import annotations

import math
import random

import pytest

from qwen_allinone.cli.temperature import COLDEST, HOTTEST, fit_temperature
from qwen_allinone.service.label_answer import calibrated


@pytest.mark.parametrize("truth", [0.5, 1.0, 2.0, 5.0])
def test_the_temperature_that_data_were_made_with_is_found(truth: float) -> None:
    """Labels are drawn from probabilities that are then sharpened or flattened: the fit must undo just that."""
    draw = random.Random(7)
    honest = [(p, 1 - p) for p in (draw.uniform(0.02, 0.98) for _ in range(20_000))]
    gold = [0 if draw.random() < pair[0] else 1 for pair in honest]
    told = [calibrated(pair, None, 1 / truth) for pair in honest]
    assert fit_temperature(told, gold) == pytest.approx(truth, rel=0.06)


def test_no_other_temperature_makes_the_right_labels_likelier() -> None:
    draw = random.Random(3)
    answers = [tuple(x / 3 for x in sorted(draw.uniform(0, 1) for _ in range(3))) for _ in range(200)]
    answers = [tuple(x / sum(row) for x in row) for row in answers]
    gold = [draw.randrange(3) for _ in answers]

    def loss(temperature: float) -> float:
        pairs = zip(answers, gold, strict=True)
        return -sum(math.log(calibrated(row, None, temperature)[label]) for row, label in pairs)

    best = loss(fit_temperature(answers, gold))
    assert all(best <= loss(COLDEST * (HOTTEST / COLDEST) ** (n / 200)) + 1e-6 for n in range(201))


def test_data_that_say_nothing_end_at_the_limits() -> None:
    assert fit_temperature([(0.9, 0.1)] * 5, [0] * 5) == pytest.approx(COLDEST)
    assert fit_temperature([(0.9, 0.1)] * 5, [1] * 5) == pytest.approx(HOTTEST)
