"""Certificates of randomised smoothing from counts of votes (Cohen, Rosenfeld & Kolter 2019, arXiv 1902.02918)."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import beta, binom, norm

from unperturbed.findings import Interval
from unperturbed.statistics.intervals import wilson

_BEYOND = 0.01
"""The probability that more certificates are false than the interval of a share allows."""


def least_share(votes: np.ndarray, draws: int, alpha: float) -> np.ndarray:
    """Return the exact lower confidence bounds at 1 - alpha on the probability of a vote (Clopper & Pearson 1934).

    LOWERCONFBOUND of section 3.2.2: the share p with P(Binomial(draws, p) >= votes) = alpha, and 0 without a vote.

    Args:
        votes: of each example, from 0 to `draws`.
        draws: of each example, at least 1.
        alpha: chance that a bound is too high, in (0, 1).
    """
    votes = np.asarray(votes)
    return np.where(votes > 0, beta.ppf(alpha, np.maximum(votes, 1), draws - votes + 1), 0.0)


def certified_radius(votes: np.ndarray, draws: int, alpha: float, sigma: float) -> np.ndarray:
    """Return sigma Phi^-1(pA), with pA the lower bound on the chance of the votes; 0 where pA is not above 1/2.

    Theorem 1 with pB = 1 - pA: the prediction of the smoothed classifier is constant within this L2 distance. It holds
    with a probability of at least 1 - alpha per example. The unit is that of sigma and the inputs.
    """
    share = least_share(votes, draws, alpha)
    return np.where(share > 0.5, sigma * norm.ppf(np.maximum(share, 0.5)), 0.0)


def largest_radius(draws: int, alpha: float, sigma: float) -> float:
    """Return the radius that `draws` votes out of `draws` certify: sigma Phi^-1(alpha^(1 / draws))."""
    return float(certified_radius(np.array([draws]), draws, alpha, sigma)[0])


def certified_share(certified: Sequence[bool], alpha: float) -> Interval:
    """Return the share of examples with a certificate, with its 95% interval.

    Each certificate is false with a probability of at most alpha, independently of the others, so that the number of
    false ones is bounded by a binomial. The low end is Wilson's for the certificates less the 99% quantile of that
    binomial; the high end is Wilson's for all of them: with more draws it may rise.
    """
    n, count = len(certified), sum(certified)
    share = wilson(count, n)
    false = int(binom.ppf(1 - _BEYOND, n, alpha))
    return Interval(share.value, wilson(max(count - false, 0), n).low, share.high, n)
