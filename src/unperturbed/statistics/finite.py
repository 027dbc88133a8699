"""Exact intervals for a number of marked members of a finite population, of which some were drawn."""

from collections.abc import Callable
from functools import cache

from scipy.stats import hypergeom

BELOW = 0.02
"""Share of the allowed error at the low end."""


@cache
def marked_in_population(marked: int, drawn: int, size: int, level: float = 0.95) -> tuple[int, int]:
    """Return the interval of the number of marked members of a population, from a simple random sample.

    `drawn` of `size` members were drawn without replacement, and `marked` of these carry the mark. The interval holds
    every number of marked members under which neither so few marks nor so many are too improbable (Clopper and Pearson
    1934, Biometrika 26, here for the hypergeometric distribution). It covers the true number with probability `level`
    at least. The two ends share the allowed error unequally: few marks are expected, for which the low end is close to
    0 at any level, and the interval is narrower if nearly all of the error is left to the high end. For none marked
    that is the rule of three: about 3 / drawn of the population, for 3.7 with equal shares.

    Raises:
        ValueError: where the numbers are not 0 <= marked <= drawn <= size.
    """
    if not 0 <= marked <= drawn <= size:
        raise ValueError(f"{marked} marked of {drawn} drawn of {size}: each must be at most the next, and 0 at least.")
    least, most, error = marked, size - (drawn - marked), 1 - level
    low = _first(least, most, lambda number: hypergeom.sf(marked - 1, size, number, drawn) > BELOW * error)
    fewer = _first(
        0, most - low, lambda number: hypergeom.cdf(marked, size, most - number, drawn) > (1 - BELOW) * error
    )
    return low, most - fewer


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """Return the smallest number from `low` to `high` for which a monotone condition holds; `high` where none does."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
