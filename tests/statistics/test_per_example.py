"""Summaries of values per example against scipy, the literature, and exact binomial probabilities."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from scipy import stats

from unperturbed.findings import Distribution
from unperturbed.statistics.per_example import (
    average,
    described,
    difference,
    difference_of_shares,
    distribution,
    missing_note,
    portion,
    quantiles,
    sound,
)


def sample(n: int, seed: int) -> list[float]:
    return list(np.random.default_rng(seed).exponential(size=n))


def test_only_finite_values_are_kept_with_their_ids() -> None:
    values = torch.tensor([0.5, torch.nan, -1.0, torch.inf])
    found = distribution("a", values, torch.tensor([7, 8, 9, 10]), unit="logits", log=False)
    assert found == Distribution("a", (0.5, -1.0), (7, 9), "logits", False, 2)
    assert missing_note(found) == ("a: 2 of 4 examples left out, with a value that is not finite.",)
    assert missing_note(distribution("a", torch.ones(2), torch.arange(2))) == ()


def test_one_logit_that_is_not_finite_spoils_its_example_only() -> None:
    logits = torch.tensor([[1.0, 2.0], [torch.inf, 0.0], [0.0, -torch.inf], [torch.nan, 1.0]])
    found = sound(logits)
    assert found.dtype == torch.float64 and found[0].tolist() == [1.0, 2.0] and bool(found[1:].isnan().all())


@pytest.mark.parametrize("n", [2, 5, 400])
def test_means_have_students_interval(n: int) -> None:
    values = sample(n, n)
    (found,) = average("a", values)
    truth = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert (found.value, found.low, found.high) == pytest.approx((np.mean(values), truth.low, truth.high))
    assert found.n == n


def test_the_mean_of_shares_has_an_interval_of_shares() -> None:
    (high,), (low,) = average("a", [0.9, 1.0, 1.0], "%"), average("a", [0.1, 0.0, 0.0], "%")
    assert high.high == 1.0 > high.value > high.low > 0 and low.low == 0.0 < low.value < low.high < 1
    (plain,) = average("a", [0.9, 1.0, 1.0])
    assert plain.high is not None and plain.high > 1.0 and plain.low == high.low


def test_differences_have_welchs_interval() -> None:
    first, second = sample(30, 1), [3 * value for value in sample(50, 2)]
    (found,) = difference("a", first, second)
    truth = stats.ttest_ind(first, second, equal_var=False)
    interval = truth.confidence_interval(0.95)
    expected = (np.mean(first) - np.mean(second), interval.low, interval.high)
    assert (found.value, found.low, found.high) == pytest.approx(expected)
    (alike,) = difference("a", [1.0, 1.0], [1.0, 1.0])
    assert (alike.value, alike.low, alike.high) == (0.0, 0.0, 0.0)


@pytest.mark.slow
@given(n=some.integers(1, 2000), share=some.sampled_from([0.01, 0.05, 0.5]))
def test_intervals_of_quantiles_cover_at_least_95_percent(n: int, share: float) -> None:
    """The k-th of n ordered values (here k) lies below the quantile iff k values or more do: a binomial event."""
    found = {each.name: each for each in quantiles("a", [float(k) for k in range(1, n + 1)])}
    one = found[f"a: {'median' if share == 0.5 else f'{share:.0%} quantile'}"]
    below = stats.binom(n, share)
    if one.low is None or one.high is None:
        assert below.pmf(0) > 0.025 or below.pmf(n) > 0.025, "no value has enough others beyond it"
    else:
        assert below.cdf(one.high - 1) - below.cdf(one.low - 1) >= 0.95
        assert one.low <= one.value <= one.high


def test_the_difference_of_shares_is_newcombes_example() -> None:
    """56/70 - 48/80: 0.2 [0.0524, 0.3339] (Newcombe 1998, table II, method 10)."""
    (found,) = difference_of_shares("a", (56, 70, 0), (48, 80, 0))
    assert found.value == pytest.approx(0.2) and found.unit == "%"
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    (wider,), (most,) = (difference_of_shares("a", first, (48, 80, 0)) for first in ((56, 70, 5), (61, 70, 0)))
    assert (wider.value, wider.low, wider.high) == (found.value, found.low, most.high)
    (other,), (least,) = (difference_of_shares("a", (56, 70, 0), second) for second in ((48, 80, 9), (57, 80, 0)))
    assert (other.value, other.low, other.high) == (found.value, least.low, found.high)


def test_shares_count_the_unknown_at_the_high_end_only() -> None:
    (known,), (found,) = portion("a", 8, 10), portion("a", 8, 10, 2)
    assert found.value == known.value == 0.8 and found.low == known.low
    assert found.high == pytest.approx(1.0) and known.high < 0.97  # type: ignore[operator]


def test_nothing_is_said_of_nothing() -> None:
    assert described(Distribution("a", (), ())) == average("a", []) == quantiles("a", []) == portion("a", 0, 0) == ()
    assert difference("a", [], [1.0]) == difference_of_shares("a", (0, 0, 0), (1, 2, 0)) == ()
    (single,) = average("a", [2.0])
    assert (single.value, single.low, single.high) == (2.0, None, None)
