"""Adjustment of p for several tests."""

from collections.abc import Sequence


def holm(values: Sequence[float]) -> tuple[float, ...]:
    """Return p adjusted for the number of tests, in the same order (Holm 1979, https://www.jstor.org/stable/4615733).

    The k-th smallest of n is multiplied by n - k + 1, and is no smaller than those before it, and at most 1.
    """
    adjusted, largest = [1.0] * len(values), 0.0
    for rank, k in enumerate(sorted(range(len(values)), key=lambda k: values[k])):
        largest = max(largest, min(1.0, (len(values) - rank) * values[k]))
        adjusted[k] = largest
    return tuple(adjusted)
