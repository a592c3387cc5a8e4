"""What the answers to labelled data come to. Pure functions; shares are of 1."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

_BINS = 15


@dataclass(frozen=True)
class Judged:
    """One row's right label, what was answered (an abstention too), and the probability of each label of the task."""

    gold: str
    answer: str
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Figures:
    """Of all judged rows. `f1` by label; `macro_f1` is their plain mean; `confusion` counts (gold, answer)."""

    rows: int
    accuracy: float
    macro_f1: float
    ece: float
    f1: dict[str, float]
    confusion: Counter[tuple[str, str]]


def figures_of(judged: Sequence[Judged], labels: Sequence[str]) -> Figures:
    """The figures of at least one row. An answer that is no label of the task, an abstention, is a wrong one."""
    confusion = Counter((row.gold, row.answer) for row in judged)
    f1 = {label: f1_of(confusion, label) for label in labels}
    return Figures(
        rows=len(judged),
        accuracy=sum(row.gold == row.answer for row in judged) / len(judged),
        macro_f1=sum(f1.values()) / len(f1),
        ece=expected_calibration_error(
            [max(row.probabilities) for row in judged], [_likeliest(row, labels) == row.gold for row in judged]
        ),
        f1=f1,
        confusion=confusion,
    )


def f1_of(confusion: Counter[tuple[str, str]], label: str) -> float:
    """Harmonic mean of precision and recall of one label; 0 where it was neither given nor right."""
    hits = confusion[label, label]
    gold = sum(count for (right, _), count in confusion.items() if right == label)
    given = sum(count for (_, answer), count in confusion.items() if answer == label)
    return 2 * hits / (gold + given) if gold + given else 0.0


def expected_calibration_error(confidences: Sequence[float], right: Sequence[bool], bins: int = _BINS) -> float:
    """Mean distance between confidence and share of right answers, over `bins` bins of equal width (Guo et al. 2017).

    A bin holds its upper edge and not its lower one.
    """
    members: dict[int, list[tuple[float, bool]]] = {}
    for confidence, is_right in zip(confidences, right, strict=True):
        number = min(max(math.ceil(confidence * bins) - 1, 0), bins - 1)
        members.setdefault(number, []).append((confidence, is_right))
    gaps = (abs(sum(c for c, _ in held) - sum(r for _, r in held)) for held in members.values())
    return sum(gaps) / len(confidences)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of `values` do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _likeliest(row: Judged, labels: Sequence[str]) -> str:
    """What the probabilities say, whether or not the task abstained."""
    return labels[row.probabilities.index(max(row.probabilities))]
