"""95% intervals for shares."""

from scipy.stats import binomtest

from unperturbed.findings import Interval


def wilson(successes: int, n: int, at_most: int | None = None) -> Interval:
    """Return successes / n with its Wilson interval (Wilson 1927).

    With `at_most` above `successes` (some outcomes unknown), the low end belongs to `successes` and the high end to
    `at_most`. An empty sample has the interval [0, 1].
    """
    if n == 0:
        return Interval(0.0, 0.0, 1.0, 0)
    low = binomtest(successes, n).proportion_ci(method="wilson").low
    high = binomtest(successes if at_most is None else at_most, n).proportion_ci(method="wilson").high
    return Interval(successes / n, float(low), float(high), n)
