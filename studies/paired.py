"""Differences between methods, paired over the same test examples and over seeds."""

import math

from scipy.stats import t
from torch import Tensor


def interval(differences: Tensor) -> tuple[float, float, float]:
    """Return the mean of paired differences (seeds, examples) and its 95% interval, for other seeds and examples.

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
    """Return what an interval of (claimed better - claimed worse) says of the claim; nothing, from one seed."""
    if seeds < 2:
        return "not decided here (one network: seeds are not covered)"
    return "held" if low > 0 else "did not hold" if high < 0 else "not decided here"
