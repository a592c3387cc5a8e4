"""Figures against values by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_allinone.cli.figures import Judged, expected_calibration_error, figures_of, percentile

LABELS = ("a", "b")


def judged(gold: str, answer: str, first: float = 0.9) -> Judged:
    return Judged(gold, answer, (first, 1 - first))


def test_accuracy_f1_and_confusion_by_hand() -> None:
    rows = [judged("a", "a")] * 3 + [judged("a", "b", 0.2)] + [judged("b", "b", 0.2)] * 4 + [judged("b", "a")] * 2
    figures = figures_of(rows, LABELS)
    assert (figures.rows, figures.accuracy) == (10, 0.7)
    # a: precision 3/5, recall 3/4; b: precision 4/5, recall 4/6.
    assert figures.f1 == pytest.approx({"a": 2 * 0.6 * 0.75 / 1.35, "b": 2 * 0.8 * (2 / 3) / (0.8 + 2 / 3)})
    assert figures.macro_f1 == pytest.approx(sum(figures.f1.values()) / 2)
    assert figures.confusion == {("a", "a"): 3, ("a", "b"): 1, ("b", "b"): 4, ("b", "a"): 2}


def test_an_abstention_is_a_wrong_answer_but_its_probabilities_count() -> None:
    figures = figures_of([judged("a", "unknown", 0.6), judged("a", "a", 1.0)], LABELS)
    assert figures.accuracy == 0.5
    assert figures.f1 == pytest.approx({"a": 2 / 3, "b": 0.0})
    assert figures.confusion["a", "unknown"] == 1
    assert figures.ece == pytest.approx(0.4 / 2), "the likeliest label was right, with 0.6"


def test_calibration_error_by_hand() -> None:
    # Two bins: (0.6, 0.7] holds 0.65 and 0.68, both right; (0.9, 1] holds 0.95, wrong.
    assert expected_calibration_error([0.65, 0.68, 0.95], [True, True, False], bins=10) == pytest.approx(
        ((2 - 1.33) + 0.95) / 3
    )


def test_a_bin_holds_its_upper_edge() -> None:
    assert expected_calibration_error([0.5, 0.55], [False, True], bins=2) == pytest.approx((0.5 + 0.45) / 2)
    assert expected_calibration_error([0.0, 1.0], [False, True]) == 0.0


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50))
def test_the_error_is_a_share_and_at_least_the_gap_over_all(rows: list[tuple[float, bool]]) -> None:
    confidences, right = [c for c, _ in rows], [r for _, r in rows]
    error = expected_calibration_error(confidences, right)
    assert abs(sum(confidences) - sum(right)) / len(rows) <= error + 1e-9 <= 1 + 1e-9
    order = sorted(range(len(rows)), key=lambda i: hash((i, 7)))
    again = expected_calibration_error([confidences[i] for i in order], [right[i] for i in order])
    assert again == pytest.approx(error)


@pytest.mark.parametrize(("share", "value"), [(0.5, 5), (0.95, 10), (0.9, 9), (0.0, 1), (1.0, 10)])
def test_percentiles_by_nearest_rank(share: float, value: float) -> None:
    assert percentile([10, 9, 8, 7, 6, 5, 4, 3, 2, 1], share) == value


@given(st.lists(st.sampled_from([("a", "a"), ("a", "b"), ("b", "b"), ("b", "a"), ("a", "?")]), min_size=1, max_size=60))
def test_counts_add_up(pairs: list[tuple[str, str]]) -> None:
    figures = figures_of([judged(gold, answer) for gold, answer in pairs], LABELS)
    assert sum(figures.confusion.values()) == figures.rows == len(pairs)
    assert figures.accuracy == pytest.approx((figures.confusion["a", "a"] + figures.confusion["b", "b"]) / len(pairs))
    assert all(0 <= f1 <= 1 for f1 in figures.f1.values())
