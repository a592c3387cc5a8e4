"""What a model makes of a label task's own gold cases: how many are right, and what would have to be taken out of its
answers for more to be. Numbers only.

A model that was never taught a prompt may prefer one label whatever the text, while it orders texts well. Two numbers a
label mend that: a bias for each and a temperature for all, fitted as a logistic regression on the log-probabilities
(Platt scaling, 1999; with few cases, so held near to what the model says itself).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qwen_allinone.service.label_answer import LEAST, Probabilities, calibrated

FEWEST = 8  # gold cases; from fewer nothing is concluded
# How far a fit may go for what few cases say: standard deviations of a bias, in nats, and of the inverse temperature.
BIAS_SPREAD, SHARPNESS_SPREAD = 5.0, 0.5
_FOLDS = 10
_SURE = 2.0  # standard errors
_ROUNDS = 60
_FLATTEST = 0.05  # the least inverse temperature
_CHANCE_Z = 1.64  # one in twenty guessers is as good as that

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class GoldFit:
    """How a task does on its gold cases under one model: shares of 1.

    `raw`: right as the model has it. `accuracy`: right as the task answers now; where something was fitted, each case
    is answered by a fit to others. `chance`: what naming the commonest label would get.
    `loss`: mean cross entropy of the answers, in nats. `prior` is taken out of
    answers, then `temperature` holds; None and 1 where the model is best believed as it is.
    """

    cases: int
    raw: float
    accuracy: float
    chance: float
    loss: float
    prior: Probabilities | None = None
    temperature: float = 1.0

    @property
    def guesses(self) -> bool:
        """Whether it does no better on its gold cases than one who does not read them might."""
        spread = math.sqrt(self.chance * (1 - self.chance) / self.cases)
        return self.accuracy <= min(1.0, self.chance + _CHANCE_Z * spread)


def fit_to_gold(answers: Sequence[Probabilities], gold: Sequence[int]) -> GoldFit:
    """Fit to the model's `answers`, probabilities of each label, whose right labels are the indexes `gold`.

    The fit is kept only where cases it has not seen are answered better than scatter explains: more of them right, or
    the right labels likelier. It never makes a model surer of itself: gold cases are plainer than what people write.
    """
    scores = np.log(np.maximum(np.asarray(answers, dtype=np.float64), LEAST))
    right = np.asarray(gold)
    rows = np.arange(len(right))
    hits, logs = scores.argmax(1) == right, _log_softmax(scores)[rows, right]
    chance = float(np.bincount(right).max() / len(right))
    plain = GoldFit(len(right), float(hits.mean()), float(hits.mean()), chance, -float(logs.mean()))
    if len(right) < FEWEST or len(set(gold)) < 2:
        return plain
    unseen = np.empty_like(scores)
    folds = rows % min(_FOLDS, len(right))
    for fold in range(folds.max() + 1):
        held = folds == fold
        unseen[held] = _applied(scores[held], *_fitted(scores[~held], right[~held]))
    new_hits, new_logs = unseen.argmax(1) == right, unseen[rows, right]
    if not (_better(new_hits.astype(np.float64), hits.astype(np.float64)) or _better(new_logs, logs)):
        return plain
    biases, temperature = _fitted(scores, right)
    prior = tuple(map(float, np.exp(_log_softmax(-biases[None])[0])))
    return replace(
        plain, accuracy=float(new_hits.mean()), loss=-float(new_logs.mean()), prior=prior, temperature=temperature
    )


def _better(new: Floats, old: Floats) -> bool:
    """Whether the mean of `new` is the higher by more than twice what the scatter of the differences explains."""
    gains = new - old
    return float(gains.sum()) > _SURE * math.sqrt(float((gains**2).sum()))


def accuracy_of(answers: Sequence[Probabilities], gold: Sequence[int], prior: Probabilities | None) -> GoldFit:
    """How a task does whose `prior` is given: nothing is fitted."""
    right = np.asarray(gold)
    raw = float((np.asarray(answers).argmax(1) == right).mean())
    used = np.asarray([calibrated(answer, prior, 1.0) for answer in answers])
    chance = float(np.bincount(right).max() / len(right))
    loss = -float(np.log(np.maximum(used[np.arange(len(right)), right], LEAST)).mean())
    return GoldFit(len(right), raw, float((used.argmax(1) == right).mean()), chance, loss, prior)


def _fitted(scores: Floats, right: NDArray[np.int64]) -> tuple[Floats, float]:
    """A bias for each label and a temperature, 1 at least, that make the right labels likeliest; by Newton's method.

    The loss is convex: cross entropy of `sharpness * scores + offsets`, and a pull of both to 1 and 0.
    """
    labels = scores.shape[1]
    wanted = np.eye(labels)[right]
    pull = np.array([1 / SHARPNESS_SPREAD**2, *[1 / BIAS_SPREAD**2] * labels])
    start = np.array([1.0, *[0.0] * labels])
    found = start.copy()
    # One column for the sharpness, one for each offset: how they move each row's scores, [rows, labels, 1 + labels].
    moves = np.concatenate([scores[:, :, None], np.broadcast_to(np.eye(labels), (len(right), labels, labels))], 2)
    for _ in range(_ROUNDS):
        shares = np.exp(_log_softmax(found[0] * scores + found[1:]))
        slope = np.einsum("rl,rlp->p", shares - wanted, moves) + pull * (found - start)
        spread = np.einsum("rl,rlp,rlq->pq", shares, moves, moves)
        mean = np.einsum("rl,rlp->rp", shares, moves)
        step = np.linalg.solve(spread - mean.T @ mean + np.diag(pull), slope)
        found = found - step * min(1.0, 2.0 / float(np.abs(step).max() + 1e-12))
        found[0] = max(_FLATTEST, found[0])
        if np.abs(step).max() < 1e-6:
            break
    return found[1:] / found[0], max(1.0, 1 / float(found[0]))


def _applied(scores: Floats, biases: Floats, temperature: float) -> Floats:
    """Log-probabilities of what is fitted."""
    return _log_softmax((scores + biases) / temperature)


def _log_softmax(scores: Floats) -> Floats:
    shifted = scores - scores.max(1, keepdims=True)
    logs: Floats = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return logs
