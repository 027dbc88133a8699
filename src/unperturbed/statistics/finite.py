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

    def tails(number: int) -> tuple[np.ndarray, np.ndarray]:
        chances = hypergeom.pmf(np.arange(drawn + 1), size, number, drawn)
        return np.cumsum(chances), np.cumsum(chances[::-1])[::-1]

    def is_acceptable(number: int) -> bool:
        below, above = tails(number)
        tail = min(below[marked], above[marked])
        opposite = above if below[marked] < above[marked] else below
        return bool(tail + opposite[opposite <= tail * (1 + 1e-9)].max(initial=0.0) > 1 - level)

    low = _first(least, most, lambda number: bool(tails(number)[1][marked] > side))
    high = most - _first(0, most - least, lambda fewer: bool(tails(most - fewer)[0][marked] > side))
    while low < high and not is_acceptable(low):
        low += 1
    while high > low and not is_acceptable(high):
        high -= 1
    return low, high


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """Return the smallest number from `low` to `high` for which a monotone condition holds; `high` where none does."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
