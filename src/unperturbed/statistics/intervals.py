"""95% intervals for shares."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import beta, binom, binomtest, t

from unperturbed.findings import Interval

_SIDE = 0.01
"""The tail probability of the binomial distribution that is neglected, and corrected for."""


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


def mean_of_answers(right: float, lost: float, n: int) -> Interval:
    """Return right / n with Wilson's interval for n answers: those of one example differ less than those of many.

    Args:
        right: the sum over examples of the share of each one's answers that are right.
        lost: the same of those that are unknown: wrong for the low end, right for the high end.
        n: number of examples.
    """
    low, high = wilson(math.floor(right), n).low, wilson(min(math.ceil(right + lost - 1e-9), n), n).high
    return Interval(right / n, low, high, n)


def share_within(wrong: Sequence[int], lost: Sequence[int], draws: int, rho: float) -> Interval:
    """Return the share of examples whose chance of a wrong draw is at most rho, from the numbers of wrong draws.

    The value is the share with at most rho * draws of them wrong. An example near rho may fall on either side, so that
    the interval covers both the examples and the draws. With K the wrong draws of an example, G the true share and B
    the binomial distribution function of `draws` and rho, for every c

        (P(K <= c) - B(c)) / (1 - B(c)) <= G <= P(K <= c) / B(c),

    since P(K <= c) is at most B(c) for the others, and at least B(c) for those within rho. The low end takes the
    exact low end (Clopper & Pearson 1934) of P(K <= c) at the largest c with B(c) <= 1%, or 0; the high end the high
    one at the smallest c with B(c) >= 99%. At rho 0 the low end is 0, since no number of draws proves that no draw is
    wrong.

    Args:
        wrong: number of wrong draws of each example.
        lost: number of unknown draws of each: wrong for value and low end, right for the high end.
        draws: number of draws of each example.
        rho: in [0, 1).
    """
    wrong_draws, n = np.array(wrong), len(wrong)
    at_most = wrong_draws + np.array(lost)
    value = float((at_most <= int(rho * draws + 1e-9)).mean())
    below = binom.cdf(np.arange(draws + 1), draws, rho)
    lowest = max(int((below <= _SIDE).sum()) - 1, 0)
    highest = int((below < 1 - _SIDE).sum())
    sure, possible = int((at_most <= lowest).sum()), int((wrong_draws <= highest).sum())
    share = beta.ppf(0.025, sure, n - sure + 1) if sure > 0 else 0.0
    low = (share - below[lowest]) / (1 - below[lowest]) if below[lowest] < 1 else 0.0
    high = beta.ppf(0.975, possible + 1, n - possible) / below[highest] if possible < n else 1.0
    return Interval(value, float(min(max(low, 0.0), value)), float(max(min(high, 1.0), value)), n)


def wilson_over_draws(right: np.ndarray, unknown: np.ndarray) -> Interval:
    """Return the share of `right` among all entries, (examples, draws), with an interval that covers both.

    All examples may share a draw (for a network with random weights), so that many examples do not compensate for few
    draws. With p the share, s^2 the variance between the draws' shares (columns) and K draws, the variance is

        p (1 - p) / n + s^2 / K,

    where the first term is the largest contribution of n examples. It enters Wilson's formula as the variance for n'
    examples, with the quantile of Student's t at the degrees of freedom of this sum (Satterthwaite 1946): without a
    difference between draws this is `wilson`. Effects that occurred in no draw are not covered. Entries that are
    unknown count as wrong for the low end, and as right for the high end.

    Raises:
        ValueError: with fewer than two draws.
    """
    if right.shape[1] < 2:
        raise ValueError(
            f"{right.shape[1]} draw gives no information on the difference between draws: take two or more."
        )
    n = len(right)
    low, high = _student_wilson(right.mean(axis=0), n)[0], _student_wilson((right | unknown).mean(axis=0), n)[1]
    return Interval(float(right.mean()), low, high, n)


def wilson_over_runs(shares: Sequence[Interval], unknown: Sequence[int]) -> Interval:
    """Return the mean share of several runs on the same examples, with an interval that covers runs and examples.

    Runs that differ in their seed only are draws, as in `wilson_over_draws`, and more runs do not compensate for few
    examples, since the examples are the same: so the interval is wider than that of as many examples of one run. `n`
    counts the examples of all the runs together. `unknown` has the number of examples of each run that count as wrong
    for the low end and as right for the high end. A single run keeps its interval.

    Raises:
        ValueError: if the runs were measured on different numbers of examples.
    """
    sizes = {share.n for share in shares}
    if len(sizes) != 1:
        raise ValueError(f"The runs were measured on {sorted(sizes)} examples: they do not belong together.")
    if len(shares) == 1:
        return shares[0]
    (n,) = sizes
    values = np.array([share.value for share in shares])
    low, _ = _student_wilson(values, n)
    _, high = _student_wilson((values + np.array(unknown) / n).clip(max=1.0), n)
    return Interval(float(values.mean()), low, high, n * len(shares))


def _student_wilson(shares: np.ndarray, n: int) -> tuple[float, float]:
    """Return the ends of the interval for the mean of the draws' shares of n examples."""
    draws, p = len(shares), float(shares.mean())
    spread = p * (1 - p)
    between = float(shares.var(ddof=1)) / draws
    total = spread / n + between
    freedom = (draws - 1) * (total / between) ** 2 if between > 0 else np.inf
    q2 = float(t.ppf(0.975, freedom)) ** 2
    effective = spread / total if total > 0 else n
    centre = (p + q2 / (2 * effective)) / (1 + q2 / effective)
    half = (q2 * (spread / effective + q2 / (4 * effective**2))) ** 0.5 / (1 + q2 / effective)
    return max(min(centre - half, p), 0.0), min(max(centre + half, p), 1.0)  # p, in case rounding excludes it
