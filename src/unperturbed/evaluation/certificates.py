"""Certified accuracies, and robust accuracies bounded from both sides."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unperturbed.findings import Interval, Result, doubted
from unperturbed.statistics.intervals import wilson
from unperturbed.statistics.smoothing import certified_share


@dataclass(frozen=True)
class Bar:
    """Bounds on the robust accuracy of a network at one radius: certified <= truth <= attacked.

    Attributes:
        eps: the radius.
        certified: share of examples whose proven bound is above it.
        attacked: share of examples that survived a suite of attacks.
        suite: its name.
    """

    eps: float
    certified: Interval
    attacked: Interval
    suite: str

    def json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "eps": self.eps,
            "certified": self.certified.value,
            "certified_interval": [self.certified.low, self.certified.high],
            "attacked": self.attacked.value,
            "attacked_interval": [self.attacked.low, self.attacked.high],
            "suite": self.suite,
        }

    def __str__(self) -> str:
        """Return the bar in one line."""
        return f"{self.certified.value:.1%} <= truth <= {self.attacked.value:.1%}"


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Certificates(Result[Interval]):
    """Certified accuracies: lower bounds on robust accuracies, of two classifiers.

    *Smoothed* is g(x) = argmax_c P(f(x + sigma N(0, I)) = c), the vote of the network f under noise. *Network* is f, if
    its layers prove a bound. Radii are in the norm of the threat; the box is not needed.

    Attributes:
        note: a remark on the meaning of the numbers.
        sigma: standard deviation of the noise in each feature, in input units.
        draws: votes counted for the chosen class of each example.
        selection_draws: earlier draws, which choose the class.
        alpha: chance that the certificate of an example is false.
        radii: of the table, rising.
        counts: examples by the answer of the vote: correct, wrong, abstained.
        unproven: the reason why the network has no bound, or "".
        bars: bounds from both sides on the robust accuracy of the network, from proven bounds and stored attacks.
        doubts: short reasons why the certificates do not hold; the warnings have the details.
        examples: the per-example table, by column. `prediction` is the answer of the vote, -1 where it abstained;
            `votes` of the chosen class, `unknown` draws without finite logits; `radius` the certified radius of the
            prediction, right or wrong, 0 where the vote abstained; `proven` the bound of the network itself, 0 where it
            is wrong or nothing is proved.
    """

    note: str
    sigma: float
    draws: int
    selection_draws: int
    alpha: float
    radii: tuple[float, ...]
    counts: Mapping[str, int]
    unproven: str
    doubts: tuple[str, ...]
    bars: tuple[Bar, ...] = ()

    def smoothed(self, eps: float) -> Interval:
        """Return the certified accuracy of the smoothed classifier: right, at a radius above eps."""
        columns = (self.examples[name] for name in ("label", "prediction", "radius"))
        rows = zip(*columns, strict=True)
        return certified_share([label == answer and radius > eps for label, answer, radius in rows], self.alpha)

    def network(self, eps: float) -> Interval:
        """Return the share of examples whose proven bound on the network is above eps."""
        return wilson(sum(bound > eps for bound in self.examples["proven"]), self.n)

    def json(self) -> dict[str, Any]:
        """Return the summary as plain values; `network_accuracy` is null without proven bounds on the network."""
        rows = []
        for eps in self.radii:
            vote, proved = self.smoothed(eps), None if self.unproven else self.network(eps)
            rows.append(
                {
                    "eps": eps,
                    "smoothed_accuracy": vote.value,
                    "smoothed_interval": [vote.low, vote.high],
                    "network_accuracy": proved and proved.value,
                    "network_interval": proved and [proved.low, proved.high],
                }
            )
        return (
            {"note": self.note}
            | self.measured()
            | {
                "sigma": self.sigma,
                "draws": self.draws,
                "selection_draws": self.selection_draws,
                "alpha": self.alpha,
                "certified": rows,
                "counts": dict(self.counts),
                "unproven": self.unproven,
                "doubts": list(self.doubts),
                "bars": [bar.json() for bar in self.bars],
            }
            | self.circumstances()
        )

    def __str__(self) -> str:
        """Return the certified accuracies of the smoothed classifier at the radii of the table, five at most."""
        shares = [f"{self.smoothed(eps)} at {eps:g}" for eps in self.radii[:5]]
        more = ", ..." if len(self.radii) > 5 else ""
        return f"clean {self.clean_accuracy}; certified by votes {', '.join(shares)}{more}{doubted(self.doubts)}"
