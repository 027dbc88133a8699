"""Distances to the nearest misclassified points, and robust accuracy against eps, which follows from them."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from unperturbed.errors import InputError
from unperturbed.evaluation.nearest import reach
from unperturbed.findings import Interval, Result, Verdict, doubted
from unperturbed.statistics.intervals import wilson


@dataclass(frozen=True)
class SearchRecord:
    """What one attack did on the way to the distances."""

    name: str
    nearest: int
    """Examples whose nearest misclassified point is its own."""
    seconds: float
    forwards: int
    backwards: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Distances(Result[Interval]):
    """How far away the nearest misclassified point of each example is at most, and the curve that follows.

    A robust accuracy at eps is the share of examples beyond eps: those whose `distance` is larger, and whose `doubt`,
    too. So it never rises with eps, and is an upper bound like the distances: at the `radii` by the whole suite,
    between them a looser one, since only FAB has looked for what lies just within.

    Attributes:
        suite: which attacks looked, by name.
        note: what a reader of the numbers must know.
        eps: the largest radius. Beyond it FAB alone has looked, and no accuracy is given.
        radii: those at which the attacks that need one have looked, rising.
        counts: examples by verdict at the largest radius.
        searches: what each attack did.
        examples: the per-example table, by column. `distance` is that of a point that a fresh forward has found
            misclassified: 0 where the example itself is, infinite where there is none. `doubt` is where else it cannot
            be called correct: the distance of the nearest tie, or of a claim that the fresh forward refuted; 0 where a
            value was not finite, infinite where nothing is in doubt. Between the two its verdict is unknown.
        doubts: why the robust accuracies are not to be believed, each in a few words; the warnings say more.
        nearest: the nearest misclassified points (row k belongs to the k-th row of the table with an `attack`), where
            they were not written to a folder.
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

        What lies beyond eps by no more than float32 rounding (see `Threat.contains`) is within it.

        Raises:
            InputError: for a radius that is negative, or larger than the largest one looked at.
        """
        robust, unknown = self.standing(eps)
        return wilson(robust, self.n, robust + unknown)

    def curve(self) -> list[tuple[float, Interval]]:
        """Return the robust accuracy at each of the radii."""
        return [(radius, self.at(radius)) for radius in self.radii]

    def quantile(self, share: float) -> float:
        """Return the smallest radius at which at least this share of all the examples is not robust.

        Those misclassified to begin with count (at 0), and so do those in doubt; infinite where no such radius was
        found. `quantile(0.5)` is the median distance. A result above `eps` comes from FAB alone.
        """
        if not 0 < share <= 1:
            raise InputError(f"The share is {share}, but must lie in (0, 1]: 0.5 for the median.")
        ends = sorted(map(min, self.examples["distance"], self.examples["doubt"]))
        # as quotients: 0.07 * 100 is a rounding above 7
        return float(next(end for count, end in enumerate(ends, 1) if count / self.n >= share))

    def json(self) -> dict[str, Any]:
        """Return the summary as plain values; a distance that was not found is null."""
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
        """Return how many examples are robust at a radius, and for how many that is unknown."""
        if not 0 <= eps <= self.eps:
            raise InputError(f"The radius is {eps:g}, but the attacks looked from 0 to {self.eps:g}: search further.")
        columns = (self.examples[name] for name in ("distance", "doubt", "rounding"))
        rows = [(distance, doubt, reach(eps, rounding)) for distance, doubt, rounding in zip(*columns, strict=True)]
        robust = sum(min(distance, doubt) > within for distance, doubt, within in rows)
        return robust, sum(distance > within for distance, _, within in rows) - robust
