"""95% intervals for shares."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import beta, binom, binomtest, t

from unperturbed.findings import Interval

_SIDE = 0.01
"""Of the binomial distribution: what lies beyond is taken for certain, and paid for."""


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


def share_within(wrong: Sequence[int], lost: Sequence[int], draws: int, rho: float) -> Interval:
    """Return the share of examples whose chance of a wrong draw is at most rho, from the wrong ones of so many draws.

    The value is the share with at most rho * draws of them wrong. An example near rho falls on either side of it, so
    that this says little there, and the interval covers both the examples and the draws. With K the wrong draws of an
    example, G the share that is looked for and B the binomial distribution function of `draws` and rho, for every c

        (P(K <= c) - B(c)) / (1 - B(c)) <= G <= P(K <= c) / B(c),

    since P(K <= c) is at most B(c) for the others, and at least B(c) for those that are meant. The low end takes the
    exact low end (Clopper & Pearson 1934) of P(K <= c) at the largest c with B(c) <= 1%, or 0; the high end the high
    one at the smallest c with B(c) >= 99%. At rho 0 the low end is 0: no number of draws shows that none can be wrong.

    Args:
        wrong: draws of each example that are wrong for certain.
        lost: draws of each that are unknown: wrong for value and low end, right for the high end.
        draws: of each example.
        rho: in [0, 1).
    """
    known, n = np.array(wrong), len(wrong)
    at_most = known + np.array(lost)
    value = float((at_most <= int(rho * draws + 1e-9)).mean())
    below = binom.cdf(np.arange(draws + 1), draws, rho)
    few = max(int((below <= _SIDE).sum()) - 1, 0)
    many = int((below < 1 - _SIDE).sum())
    sure, possible = int((at_most <= few).sum()), int((known <= many).sum())
    share = beta.ppf(0.025, sure, n - sure + 1) if sure > 0 else 0.0
    low = (share - below[few]) / (1 - below[few]) if below[few] < 1 else 0.0
    high = beta.ppf(0.975, possible + 1, n - possible) / below[many] if possible < n else 1.0
    return Interval(value, float(min(max(low, 0.0), value)), float(max(min(high, 1.0), value)), n)


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
    n = len(right)
    low, high = _student_wilson(right.mean(axis=0), n)[0], _student_wilson((right | unknown).mean(axis=0), n)[1]
    return Interval(float(right.mean()), low, high, n)


def wilson_over_runs(shares: Sequence[Interval], unknown: Sequence[int]) -> Interval:
    """Return the mean share of several runs, each measured on the same examples, with an interval that covers both.

    Runs that differ in their seed alone are draws, as in `wilson_over_draws`, and more of them do not make up for few
    examples, since the examples are the same: so the interval is wider than that of as many examples of one run. `n`
    counts the examples of all the runs together. `unknown` has the number of examples of each run that count as wrong
    for the low end and as right for the high end. A single run keeps its own interval.

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
    return max(min(centre - half, p), 0.0), min(max(centre + half, p), 1.0)  # p itself, where rounding leaves it out
