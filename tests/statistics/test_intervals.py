import math

import numpy as np
import pytest

from unperturbed.findings import Interval
from unperturbed.statistics.intervals import share_within, wilson, wilson_over_draws, wilson_over_runs

Z = 1.959963984540054


def closed_form(successes: int, n: int, sign: int) -> float:
    """Return one end of Wilson's interval: the p whose observed share lies 1.96 standard errors away."""
    p = successes / n
    centre = p + Z**2 / (2 * n)
    return (centre + sign * Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))) / (1 + Z**2 / n)


@pytest.mark.parametrize("successes", [0, 1, 37, 99, 100])
def test_wilson(successes: int) -> None:
    interval = wilson(successes, 100)
    assert interval.value == successes / 100 and interval.n == 100
    assert interval.low == pytest.approx(closed_form(successes, 100, -1), abs=1e-9)
    assert interval.high == pytest.approx(closed_form(successes, 100, 1), abs=1e-9)
    assert 0 <= interval.low <= interval.value <= interval.high <= 1


def test_what_is_unknown_widens_the_interval_upwards_only() -> None:
    sure, unsure = wilson(60, 100), wilson(60, 100, at_most=80)
    assert unsure.value == 0.6 and unsure.low == sure.low and unsure.high == wilson(80, 100).high > sure.high


def test_more_examples_make_it_narrower() -> None:
    assert wilson(600, 1000).high - wilson(600, 1000).low < 0.5 * (wilson(60, 100).high - wilson(60, 100).low)


def test_no_examples_tell_nothing() -> None:
    assert wilson(0, 0) == Interval(0.0, 0.0, 1.0, 0)


def test_runs_on_the_same_examples_are_draws() -> None:
    rng = np.random.default_rng(0)
    right = rng.random((80, 4)) < [0.5, 0.6, 0.55, 0.7]
    lost = ~right & (rng.random((80, 4)) < 0.1)
    runs = [wilson(int(column.sum()), 80) for column in right.T]
    found = wilson_over_runs(runs, [int(column.sum()) for column in lost.T])
    expected = wilson_over_draws(right, lost)
    assert (found.value, found.low, found.high) == pytest.approx((expected.value, expected.low, expected.high))
    assert found.n == 320, "counts the examples of all the runs"


def test_runs_that_agree_are_as_sure_as_one_and_those_that_differ_are_less_sure() -> None:
    one = wilson(60, 100)
    alike, apart = (
        wilson_over_runs([one, one, one], [0, 0, 0]),
        wilson_over_runs([wilson(50, 100), wilson(70, 100)], [0, 0]),
    )
    assert (alike.value, alike.low, alike.high) == pytest.approx((one.value, one.low, one.high))
    assert apart.value == pytest.approx(0.6) and apart.low < one.low and apart.high > one.high
    assert wilson_over_runs([one], [3]) is one


def test_runs_on_different_numbers_of_examples_do_not_belong_together() -> None:
    with pytest.raises(ValueError, match=r"\[50, 100\]"):
        wilson_over_runs([wilson(5, 50), wilson(5, 100)], [0, 0])


def covered(draws: int, rho: float, near: float, inside: float, times: int) -> float:
    """Return how often the interval covers the truth where some examples are never wrong, and the others near rho."""
    rng = np.random.default_rng([draws, round(rho * 100), round(near * 1e4), round(inside * 10)])
    n, hits = 200, 0
    truth = 1.0 if near <= 1 else inside
    for _ in range(times):
        chances = np.where(rng.random(n) < inside, 0.0, near * rho)
        found = share_within(rng.binomial(draws, chances).tolist(), [0] * n, draws, rho)
        hits += found.low <= truth <= found.high
    return hits / times


@pytest.mark.parametrize("rho", [0.1, 0.01])
@pytest.mark.parametrize("near", [1.0, 1.2])
def test_the_interval_over_draws_and_examples_covers_also_at_the_threshold(rho: float, near: float) -> None:
    assert covered(100, rho, near, 0.3, 100) >= 0.93


@pytest.mark.slow
@pytest.mark.parametrize("draws", [100, 1000])
@pytest.mark.parametrize("rho", [0.1, 0.05, 0.01])
@pytest.mark.parametrize("near", [0.5, 0.85, 1.0, 1.0001, 1.2, 2.0])
@pytest.mark.parametrize("inside", [0.0, 0.3, 1.0])
def test_the_interval_over_draws_and_examples_covers_everywhere(
    draws: int, rho: float, near: float, inside: float
) -> None:
    assert covered(draws, rho, near, inside, 300) >= 0.93


def test_a_mixed_population_is_covered_too() -> None:
    rng, hits = np.random.default_rng(0), 0
    for _ in range(100):
        chances = rng.exponential(0.05, 300)
        found = share_within(rng.binomial(100, chances.clip(0, 1)).tolist(), [0] * 300, 100, 0.05)
        hits += found.low <= 1 - math.exp(-1) <= found.high
    assert hits / 100 >= 0.93


def test_unknown_draws_widen_the_interval_on_both_sides_and_rho_0_has_no_low_end() -> None:
    sure = share_within([0] * 50 + [90] * 50, [0] * 100, 100, 0.1)
    open_ = share_within([0] * 50 + [0] * 50, [0] * 50 + [90] * 50, 100, 0.1)
    assert open_.value == sure.value == 0.5 and open_.low == sure.low and open_.high == 1 > sure.high
    assert share_within([0] * 100, [0] * 100, 100, 0.0).low == 0
