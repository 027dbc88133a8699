"""Exact intervals for a number of marked members of a finite population, of which some were drawn."""

from collections.abc import Callable

import numpy as np
from scipy.stats import hypergeom


def marked_in_population(marked: int, drawn: int, size: int, level: float = 0.95) -> tuple[int, int]:
    """Return the interval of the number of marked members of a population, from a simple random sample.

    `drawn` of `size` members were drawn without replacement, and `marked` of these carry the mark. The interval holds
    every number of marked members for which the sample is acceptable (Blaker 2000, Canadian Journal of Statistics 28,
    definition 1, here for the hypergeometric distribution): the smaller tail of the sample's count, plus the largest
    tail on the other side that is no larger, is more than 1 - level. It covers the true number with probability
    `level` at least, and lies within the interval of Clopper and Pearson.

    Raises:
        ValueError: where the numbers are not 0 <= marked <= drawn <= size.
    """
    if not 0 <= marked <= drawn <= size:
        raise ValueError(f"{marked} marked of {drawn} drawn of {size}: each must be at most the next, and 0 at least.")
    least, most, side = marked, size - (drawn - marked), (1 - level) / 2
    low = _first(least, most, lambda number: hypergeom.sf(marked - 1, size, number, drawn) > side)
    high = most - _first(0, most - least, lambda fewer: hypergeom.cdf(marked, size, most - fewer, drawn) > side)
    while low < high and _acceptability(marked, low, drawn, size) <= 1 - level:
        low += 1
    while high > low and _acceptability(marked, high, drawn, size) <= 1 - level:
        high -= 1
    return low, high


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """Return the smallest number from `low` to `high` for which a monotone condition holds; `high` where none does."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def _acceptability(marked: int, number: int, drawn: int, size: int) -> float:
    """Return the smaller tail of the count plus the largest tail on the other side that is no larger."""
    counts = np.arange(drawn + 1)
    below, above = hypergeom.cdf(counts, size, number, drawn), hypergeom.sf(counts - 1, size, number, drawn)
    tail = min(below[marked], above[marked])
    opposite = above if below[marked] < above[marked] else below
    no_larger = opposite[opposite <= tail * (1 + 1e-9)]
    return float(min(tail + no_larger.max(initial=0.0), 1.0))
