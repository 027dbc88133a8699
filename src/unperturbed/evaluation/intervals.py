"""95% intervals for shares."""

import numpy as np
from scipy.stats import binomtest, t

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


def wilson_over_draws(right: np.ndarray, unknown: np.ndarray) -> Interval:
    """Return the share of `right` among all entries, (examples, draws), with an interval that covers both.

    A draw may be shared by all the examples (a network whose weights are drawn), so that their number does not make up
    for few draws. With p the share, s^2 the variance between the draws' shares (columns) and K draws, the variance is

        p (1 - p) / n + s^2 / K,

    the first term being the most that n examples can contribute. It enters Wilson's formula as that of n' examples,
    with the quantile of Student's t at the degrees of freedom that this sum has (Satterthwaite 1946): without a
    difference between draws this is `wilson`. What no draw has shown is not covered. Entries that are unknown count
    as wrong for the low end, and as right for the high end.

    Raises:
        ValueError: with fewer than two draws.
    """
    if right.shape[1] < 2:
        raise ValueError(f"{right.shape[1]} draw says nothing about the difference between draws: take two or more.")
    low, high = _student_wilson(right)[0], _student_wilson(right | unknown)[1]
    return Interval(float(right.mean()), low, high, len(right))


def _student_wilson(right: np.ndarray) -> tuple[float, float]:
    (n, draws), p = right.shape, float(right.mean())
    spread = p * (1 - p)
    between = float(right.mean(axis=0).var(ddof=1)) / draws
    total = spread / n + between
    freedom = (draws - 1) * (total / between) ** 2 if between > 0 else np.inf
    q2 = float(t.ppf(0.975, freedom)) ** 2
    effective = spread / total if total > 0 else n
    centre = (p + q2 / (2 * effective)) / (1 + q2 / effective)
    half = (q2 * (spread / effective + q2 / (4 * effective**2))) ** 0.5 / (1 + q2 / effective)
    return max(min(centre - half, p), 0.0), min(max(centre + half, p), 1.0)  # p itself, where rounding leaves it out
