"""Distances to the nearest misclassified points, and robust accuracy against eps, which follows from them."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from unperturbed.errors import InputError
from unperturbed.evaluation.surroundings import reach
from unperturbed.findings import Interval, Result, Verdict, doubted
from unperturbed.statistics.intervals import wilson


@dataclass(frozen=True)
class SearchRecord:
    """The record of one attack in the search for distances."""

    name: str
    nearest: int
    """Examples whose nearest misclassified point this attack found."""
    seconds: float
    forwards: int
    backwards: int


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Distances(Result[Interval]):
    """Upper bounds on the distances to the nearest misclassified points, and the resulting curve.

    The robust accuracy at eps is the share of examples whose `distance` and `doubt` are both larger. So it never rises
    with eps, and is an upper bound like the distances: at the `radii` by the whole suite; between them it is looser,
    since only attacks without a radius have searched there.

    Attributes:
        suite: name of the suite.
        note: a remark on the meaning of the numbers.
        eps: the largest radius. Beyond it only attacks without a radius have searched, and no accuracy is given.
        radii: the radii of the attacks that need one, rising.
        counts: examples by verdict at the largest radius.
        searches: the record of each attack.
        examples: the per-example table, by column. `distance` is that of a point that a fresh forward misclassifies: 0
            for a misclassified example, infinite if no point was found. `doubt` is the distance of the nearest tie, or
            of a claim that the fresh forward refuted; 0 if a value was not finite, infinite without doubts. Between the
            two the verdict is unknown.
        doubts: short reasons why the robust accuracies are not credible; the warnings have the details.
        nearest: the nearest misclassified points (row k belongs to the k-th row of the table with an `attack`), if they
            were not written to a folder.
    """

    suite: str
    note: str
    eps: float
    radii: tuple[float, ...]
    counts: Mapping[Verdict, int]
    searches: tuple[SearchRecord, ...]
    nearest: Any = None
    doubts: tuple[str, ...] = ()

    def at(self, eps: float) -> Interval:
        """Return the robust accuracy at a radius: its interval counts the unknown as not robust below, as robust above.

        A point beyond eps by no more than float32 rounding (see `Threat.contains`) counts as within it.

        Raises:
            InputError: for a radius that is negative, or larger than the largest searched one.
        """
        robust, unknown = self.standing(eps)
        return wilson(robust, self.n, robust + unknown)

    def curve(self) -> list[tuple[float, Interval]]:
        """Return the robust accuracy at each of the radii."""
        return [(radius, self.at(radius)) for radius in self.radii]

    def quantile(self, share: float) -> float:
        """Return the smallest radius at which at least this share of all the examples is not robust.

        Misclassified examples count (at 0), and so do those in doubt; infinite if no such radius was found.
        `quantile(0.5)` is the median distance. A result above `eps` comes from attacks without a radius.
        """
        if not 0 < share <= 1:
            raise InputError(f"The share is {share}, but must lie in (0, 1]: 0.5 for the median.")
        ends = sorted(map(min, self.examples["distance"], self.examples["doubt"]))
        # as quotients: 0.07 * 100 is a rounding above 7
        return float(next(end for count, end in enumerate(ends, 1) if count / self.n >= share))

    def json(self) -> dict[str, Any]:
        """Return the summary as plain values; an unknown distance is null."""
        quantiles = {f"{share:g}": self.quantile(share) for share in (0.1, 0.25, 0.5, 0.75, 0.9)}
        curve = [
            {
                "eps": eps,
                "robust_accuracy": accuracy.value,
                "interval": [accuracy.low, accuracy.high],
                "unknown": self.standing(eps)[1],
            }
            for eps, accuracy in self.curve()
        ]
        return (
            {"suite": self.suite, "note": self.note}
            | self.measured()
            | {
                "curve": curve,
                "doubts": list(self.doubts),
                "quantiles": {share: value if math.isfinite(value) else None for share, value in quantiles.items()},
                "counts": dict(self.counts),
                "attacks": [asdict(record) for record in self.searches],
            }
            | self.circumstances()
        )

    def __str__(self) -> str:
        """Return the headline."""
        return (
            f"clean {self.clean_accuracy}; median distance {self.quantile(0.5):.4g}; robust under {self.threat} "
            f"{self.at(self.eps)}{doubted(self.doubts)} ({self.suite}: {self.note})"
        )

    def standing(self, eps: float) -> tuple[int, int]:
        """Return the numbers of robust and of unknown examples at a radius."""
        if not 0 <= eps <= self.eps:
            raise InputError(f"The radius is {eps:g}, but the attacks looked from 0 to {self.eps:g}: search further.")
        columns = (self.examples[name] for name in ("distance", "doubt", "rounding"))
        rows = [(distance, doubt, reach(eps, rounding)) for distance, doubt, rounding in zip(*columns, strict=True)]
        robust = sum(min(distance, doubt) > within for distance, doubt, within in rows)
        return robust, sum(distance > within for distance, _, within in rows) - robust
