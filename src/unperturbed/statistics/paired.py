"""Differences between methods, paired over the same test examples and over seeds."""

import math
from dataclasses import dataclass

from scipy.stats import binomtest, norm, t
from torch import Tensor

POWER = 0.8
"""The probability with which a study of the needed size decides a claim."""
MOST_SEEDS = 10_000


@dataclass(frozen=True)
class PairedMean:
    """The mean of paired differences over seeds and examples, with its variance for other seeds and examples.

    Attributes:
        mean: of all differences.
        over_seeds: variance of a seed's mean, 0 for one seed.
        over_examples: variance of an example's mean over these seeds, 0 for one example.
        within: its part that comes from the seeds, and falls with their number.
        seeds: their number.
        examples: their number.
        least_error: the smallest standard error of the mean that is believed, such as that of one example.
    """

    mean: float
    over_seeds: float
    over_examples: float
    within: float
    seeds: int
    examples: int
    least_error: float = 0.0

    @classmethod
    def of(cls, differences: Tensor, least_error: float = 0.0) -> "PairedMean":
        """Return the mean of differences (seeds, examples)."""
        seeds, examples = differences.shape
        of_seed, of_example = differences.mean(1), differences.mean(0)
        over_seeds = float(of_seed.var()) if seeds > 1 else 0.0
        over_examples = float(of_example.var()) if examples > 1 else 0.0
        within = 0.0
        if seeds > 1 and examples > 1:
            rest = differences - of_seed[:, None] - of_example + differences.mean()
            within = float(rest.square().sum() / ((seeds - 1) * (examples - 1)) / seeds)
        within = min(within, over_examples)
        return cls(float(differences.mean()), over_seeds, over_examples, within, seeds, examples, least_error)

    def variance(self, seeds: int | None = None) -> float:
        """Return the variance of the mean, with as many seeds (None: as measured) on as many examples."""
        if self.seeds == self.examples == 1:
            return math.inf
        count = seeds or self.seeds
        lasting = self.over_examples - self.within
        seen = self.over_seeds / count + (lasting + self.within * self.seeds / count) / self.examples
        return max(seen, self.least_error**2)

    def freedom(self, seeds: int | None = None) -> float:
        """Return Satterthwaite's degrees of freedom of that variance."""
        count = seeds or self.seeds
        by_seed = self.over_seeds / count
        return (count - 1) * (self.variance(seeds) / by_seed) ** 2 if by_seed > 0 else math.inf

    def interval(self) -> tuple[float, float]:
        """Return the 95% interval of the mean."""
        half = float(t.ppf(0.975, self.freedom())) * math.sqrt(self.variance())
        return self.mean - half, self.mean + half

    def p_beyond(self, threshold: float) -> float:
        """Return twice the one-sided p for a true mean at the threshold, on the side where the mean lies."""
        away, error = abs(self.mean - threshold), math.sqrt(self.variance())
        if error == 0:
            return 0.0 if away > 0 else 1.0
        return min(1.0, 2 * float(t.sf(away / error, self.freedom())))

    def seeds_needed(self, distance: float, level: float = 0.05) -> int | None:
        """Return the least number of seeds with which a two-sided test decides with probability `POWER`.

        The test's true mean lies `distance` from its threshold, and the variances are those seen. None if no number of
        seeds suffices with as many examples.
        """

        def decides(seeds: int) -> bool:
            freedom = self.freedom(seeds)
            quantiles = float(t.ppf(1 - level / 2, freedom) + t.ppf(POWER, freedom))
            return abs(distance) >= quantiles * math.sqrt(self.variance(seeds))

        if not decides(MOST_SEEDS):
            return None
        low, high = 1, MOST_SEEDS
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if decides(middle) else (middle, high)
        return high


def interval(differences: Tensor) -> tuple[float, float, float]:
    """Return the mean of paired differences (seeds, examples) and its 95% interval, over seeds and examples.

    The variances of the means over seeds and over examples add up; the former, of few values, takes Student's quantile
    (Satterthwaite's degrees of freedom for the sum).
    """
    paired = PairedMean.of(differences)
    return paired.mean, *paired.interval()


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
