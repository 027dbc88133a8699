"""Differences between methods, paired over the same test examples and over seeds."""

import math

from scipy.stats import binomtest, norm, t
from torch import Tensor


def interval(differences: Tensor) -> tuple[float, float, float]:
    """Return the mean of paired differences (seeds, examples) and its 95% interval, over seeds and examples.

    The variances of the means over seeds and over examples add up; the former, of few values, takes Student's quantile
    (Satterthwaite's degrees of freedom for the sum).
    """
    seeds, examples = differences.shape
    by_example = float(differences.mean(0).var() / examples)
    by_seed = float(differences.mean(1).var() / seeds) if seeds > 1 else 0.0
    freedom = (seeds - 1) * ((by_seed + by_example) / by_seed) ** 2 if by_seed > 0 else math.inf
    mean, half = float(differences.mean()), float(t.ppf(0.975, freedom)) * math.sqrt(by_seed + by_example)
    return mean, mean - half, mean + half


def verdict(low: float, high: float, seeds: int) -> str:
    """Return the decision on a claim by an interval of (claimed better - claimed worse); none from one seed."""
    if seeds < 2:
        return "not decided here (one network: seeds are not covered)"
    return "held" if low > 0 else "did not hold" if high < 0 else "not decided here"


def share_interval(gained: int, lost: int, n: int) -> tuple[float, float]:
    """Return the 95% interval of (gained - lost) / n, a difference of two shares of the same n examples.

    `gained` examples are right on one side only, `lost` on the other only. The adjusted Wald interval of Bonett and
    Price (2012, https://doi.org/10.3102/1076998611411915), which holds its level also if few examples differ.
    """
    up, down = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    half = float(norm.ppf(0.975)) * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    return max(up - down - half, -1.0), min(up - down + half, 1.0)


def mcnemar(gained: int, lost: int) -> float:
    """Return the two-sided p of McNemar's exact test for equal numbers of gained and lost examples."""
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
