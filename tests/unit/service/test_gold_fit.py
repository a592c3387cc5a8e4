"""What is concluded from gold cases: against a plain optimiser, and on models of known faults."""

from __future__ import annotations

import random

import pytest
import torch

from qwen_allinone.service.gold_fit import (
    BIAS_SPREAD,
    FEWEST,
    SHARPNESS_SPREAD,
    _fitted,
    accuracy_of,
    fit_to_gold,
)
from qwen_allinone.service.label_answer import Probabilities, calibrated


def answers_of(
    rows: int, labels: int, *, knows: float, prefers: float, seed: int = 1
) -> tuple[list[Probabilities], list[int]]:
    """Answers of a model that tells labels apart by `knows` nats and prefers the first one by `prefers`."""
    rng = random.Random(seed)
    answers, gold = list[Probabilities](), list[int]()
    for row in range(rows):
        right = row % labels
        scores = [rng.gauss(0, 1) + knows * (label == right) + prefers * (label == 0) for label in range(labels)]
        answers.append(tuple(torch.tensor(scores, dtype=torch.float64).softmax(0).tolist()))
        gold.append(right)
    return answers, gold


@pytest.mark.parametrize(("labels", "prefers"), [(2, 3.0), (2, 8.0), (4, 4.0), (6, -6.0)])
def test_a_model_that_prefers_a_label_is_set_right(labels: int, prefers: float) -> None:
    fit = fit_to_gold(*answers_of(36, labels, knows=4, prefers=prefers))
    assert fit.raw < 0.9 and fit.accuracy > 0.9 and fit.prior is not None and not fit.guesses
    other, gold = answers_of(300, labels, knows=4, prefers=prefers, seed=2)
    shares = [calibrated(answer, fit.prior, fit.temperature) for answer in other]
    right = sum(share.index(max(share)) == label for share, label in zip(shares, gold, strict=True))
    assert right > 0.9 * 300, "it holds for texts that were not fitted to"


@pytest.mark.parametrize("seed", range(12))
def test_a_model_that_is_right_is_believed_as_it_is(seed: int) -> None:
    fit = fit_to_gold(*answers_of(40, 2, knows=4, prefers=0, seed=seed))
    assert fit.prior is None and fit.temperature == 1.0 and fit.accuracy == fit.raw > 0.9


@pytest.mark.parametrize("prefers", [0.0, 5.0])
def test_a_model_that_knows_nothing_is_told_of(prefers: float) -> None:
    assert fit_to_gold(*answers_of(30, 2, knows=0, prefers=prefers)).guesses


def test_nothing_is_concluded_from_too_little() -> None:
    few = fit_to_gold(*answers_of(FEWEST - 1, 2, knows=4, prefers=8))
    assert few.prior is None and few.accuracy == few.raw
    answers, _ = answers_of(20, 2, knows=4, prefers=8)
    assert fit_to_gold(answers, [0] * 20).prior is None, "only one label occurs"


def test_no_fit_makes_a_model_surer_of_itself() -> None:
    for seed in range(20):
        fit = fit_to_gold(*answers_of(30, 3, knows=2, prefers=3, seed=seed))
        assert fit.temperature >= 1.0


def test_certain_answers_stay_finite() -> None:
    answers = [(1.0, 0.0) if row % 3 else (0.0, 1.0) for row in range(30)]
    fit = fit_to_gold(answers, [int(row % 3 == 0) for row in range(30)])
    assert fit.accuracy == 1.0 and fit.loss < 1e-6
    wrong = fit_to_gold(answers, [int(row % 3 != 0) for row in range(30)])
    assert wrong.guesses


@pytest.mark.parametrize("labels", [2, 3, 5])
def test_the_fit_is_the_one_that_a_plain_optimiser_finds(labels: int) -> None:
    answers, gold = answers_of(60, labels, knows=1.5, prefers=2)
    scores, right = torch.tensor(answers, dtype=torch.float64).log(), torch.tensor(gold)
    found = torch.tensor([1.0, *[0.0] * labels], dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([found], lr=0.5, max_iter=500, tolerance_grad=1e-10)

    def loss() -> torch.Tensor:
        search.zero_grad()
        value = torch.nn.functional.cross_entropy(found[0] * scores + found[1:], right, reduction="sum")
        value = value + (found[0] - 1) ** 2 / (2 * SHARPNESS_SPREAD**2)
        value = value + (found[1:] ** 2).sum() / (2 * BIAS_SPREAD**2)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    search.step(loss)  # type: ignore[arg-type]
    wanted = found.detach()
    biases, temperature = _fitted(scores.numpy(), right.numpy())
    assert biases == pytest.approx((wanted[1:] / wanted[0]).tolist(), abs=1e-4)
    assert temperature == pytest.approx(max(1.0, 1 / float(wanted[0])), abs=1e-4)


def test_a_prior_that_is_given_is_judged_and_not_changed() -> None:
    answers, gold = answers_of(30, 2, knows=4, prefers=6)
    fit = accuracy_of(answers, gold, (0.99, 0.01))
    assert fit.prior == (0.99, 0.01) and fit.temperature == 1.0
    assert fit.raw < 0.7 < 0.9 < fit.accuracy
