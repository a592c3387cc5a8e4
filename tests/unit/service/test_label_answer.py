"""Temperature and prior: against values by hand, and against what must hold for any probabilities."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_allinone.service.label_answer import calibrated, choose, mean
from qwen_allinone.tasks import Label, Output, Unknown

shares = st.lists(st.floats(1e-6, 1.0), min_size=2, max_size=6).map(lambda raw: tuple(x / sum(raw) for x in raw))


def test_a_temperature_by_hand() -> None:
    # At temperature 2 the odds 9 : 1 become 3 : 1.
    assert calibrated((0.9, 0.1), None, 2.0) == pytest.approx((0.75, 0.25))
    assert calibrated((0.75, 0.25), None, 0.5) == pytest.approx((0.9, 0.1))


def test_a_prior_by_hand() -> None:
    # 0.6 / 0.8 against 0.4 / 0.2: what the prompt prefers anyway says little.
    assert calibrated((0.6, 0.4), (0.8, 0.2), 1.0) == pytest.approx((0.75 / 2.75, 2.0 / 2.75))
    assert calibrated((0.3, 0.7), (0.5, 0.5), 1.0) == pytest.approx((0.3, 0.7))
    assert calibrated((0.8, 0.2), (0.8, 0.2), 3.0) == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize(
    ("shares", "chosen"),
    [
        ((0.7, 0.2, 0.1), "甲"),
        ((0.6, 0.19, 0.21), "丙"),  # as soon as it reaches its bound
        ((0.3, 0.5, 0.2), "乙"),  # of two that do the first
        ((0.45, 0.45, 0.1), "乙"),
        ((0.35, 0.1, 0.2), "丙"),  # though the likeliest is unsure
        ((0.39, 0.24, 0.19), "说不准"),
    ],
)
def test_the_likeliest_label_is_chosen_unless_another_reaches_its_own_bound(
    shares: tuple[float, ...], chosen: str
) -> None:
    labels = (Label(name="甲"), Label(name="乙", at_least=0.25), Label(name="丙", at_least=0.2))
    output = Output(kind="label", labels=labels, unknown=Unknown(name="说不准", below=0.4))
    assert choose(output, shares, shares.index(max(shares))).name == chosen


def test_the_mean_of_answers() -> None:
    assert mean([(0.2, 0.8), (0.6, 0.4)]) == pytest.approx((0.4, 0.6))


def test_without_either_the_numbers_are_the_same_to_the_bit() -> None:
    assert calibrated((0.1, 0.2, 0.7), None, 1.0) == (0.1, 0.2, 0.7)


@given(shares, st.floats(0.05, 20.0))
def test_a_temperature_never_changes_the_order(given_shares: tuple[float, ...], temperature: float) -> None:
    after = calibrated(given_shares, None, temperature)
    assert sum(after) == pytest.approx(1.0)
    for i, one in enumerate(given_shares):
        for j, other in enumerate(given_shares):
            if one > other:
                assert after[i] >= after[j]


@given(shares, st.integers(0, 5), st.floats(0.05, 20.0))
def test_a_probability_of_zero_is_no_error(given_shares: tuple[float, ...], which: int, temperature: float) -> None:
    holed = list(given_shares)
    holed[which % len(holed)] = 0.0
    for prior in (None, tuple(holed)):
        assert sum(calibrated(holed, prior, temperature)) == pytest.approx(1.0)
