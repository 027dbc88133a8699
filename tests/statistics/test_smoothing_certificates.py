"""Certificates from votes: against scipy's exact intervals, by enumeration of all counts, and in closed form."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from scipy.stats import binom, binomtest, norm

from unperturbed.statistics.intervals import wilson
from unperturbed.statistics.smoothing import certified_radius, certified_share, largest_radius, least_share


@given(draws=some.integers(1, 400), share=some.floats(0, 1), alpha=some.sampled_from([0.001, 0.01, 0.05, 0.2]))
@settings(max_examples=60, deadline=None)
def test_the_bound_is_the_exact_one_sided_interval_of_scipy(draws: int, share: float, alpha: float) -> None:
    votes = round(share * draws)
    expected = binomtest(votes, draws, alternative="greater").proportion_ci(1 - alpha, method="exact").low
    assert least_share(np.array([votes]), draws, alpha)[0] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.3])
@pytest.mark.parametrize("draws", [1, 10, 150])
def test_a_bound_is_too_high_with_a_chance_of_at_most_alpha(draws: int, alpha: float) -> None:
    """Over all counts that may come: alpha itself for a true share just below a bound, less for every other share."""
    votes = np.arange(draws + 1)
    bounds = least_share(votes, draws, alpha)

    def failures(share: float) -> float:
        return float(binom.pmf(votes, draws, share)[bounds > share].sum())

    assert all(failures(share) <= alpha * (1 + 1e-9) for share in np.linspace(0.001, 0.999, 333))
    assert all(failures(bound * (1 - 1e-9)) == pytest.approx(alpha, rel=1e-5) for bound in bounds[1:])


def test_the_radius_is_sigma_times_the_quantile_and_0_at_a_half() -> None:
    votes, draws, alpha, sigma = np.array([0, 500, 510, 700, 990, 1000]), 1000, 0.001, 0.25
    shares = least_share(votes, draws, alpha)
    radii = certified_radius(votes, draws, alpha, sigma)
    assert list(radii[:3]) == [0, 0, 0] and shares[2] < 0.5
    np.testing.assert_allclose(radii[3:], sigma * norm.ppf(shares[3:]), rtol=1e-12)
    assert radii[-1] == largest_radius(draws, alpha, sigma) == pytest.approx(sigma * norm.ppf(alpha ** (1 / draws)))


@pytest.mark.parametrize("distance", [0.1, 0.5, 1.0, 2.0])
def test_with_many_votes_the_radius_tends_to_the_distance_of_a_plane(distance: float) -> None:
    """The chance of a half space at this distance is Phi(distance / sigma): Cohen et al. 2019, appendix B."""
    draws, sigma = 10**9, 0.7
    votes = np.array([math.floor(draws * norm.cdf(distance / sigma))])
    assert certified_radius(votes, draws, 0.001, sigma)[0] == pytest.approx(distance, rel=0.01)
    assert certified_radius(votes, draws, 0.001, sigma)[0] < distance


def test_the_share_allows_for_certificates_that_are_false() -> None:
    sure = certified_share([True] * 90 + [False] * 10, 1e-9)
    assert sure == wilson(90, 100)
    doubtful = certified_share([True] * 90 + [False] * 10, 0.05)
    assert doubtful.value == 0.9 and doubtful.high == sure.high
    assert doubtful.low == wilson(90 - int(binom.ppf(0.99, 100, 0.05)), 100).low < sure.low
    assert certified_share([False] * 5, 0.1) == wilson(0, 5)
    assert certified_share([True, False, False], 0.9).low == wilson(0, 3).low
