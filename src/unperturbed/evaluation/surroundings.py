"""The state of a search around a block of examples for the nearest misclassified points."""

from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from unperturbed.attacks.gradient import Suite
from unperturbed.evaluation.evidence import Evidence
from unperturbed.evaluation.parts import Tally
from unperturbed.types import Batch, Inputs, Labels, PerExample, Rows

Number = TypeVar("Number", float, Tensor)


@dataclass(eq=False)
class Surroundings:
    """The state of a block of examples, one row per example; the search updates it."""

    batch: Batch
    prediction: Labels
    clean_margin: PerExample
    """NaN if the network fails even alone, or the logits are not finite."""
    z: Inputs
    """The nearest known misclassified point; x if there is none."""
    margin: PerExample
    """There."""
    found_by: Labels
    """The number of the attack that found z; -1 if z is x."""
    distance: PerExample
    """The distance of z: 0 if x is misclassified, infinite if no point is known."""
    doubt: PerExample
    """The distance of the nearest point other than z with a doubtful verdict."""
    rounding: PerExample
    """The error by which float32 may overestimate the distance of a point on the threat set's boundary."""
    finite: Tensor
    """Bool: whether all values computed so far were finite."""
    withstood: Tensor
    """Bool: whether the example survived the suite at a radius."""
    steps: Tensor
    """The number of finished steps of the search, a scalar."""
    tallies: list[Tally] = field(default_factory=list)
    """One for each attack."""
    warnings: list[str] = field(default_factory=list)
    evidence: Evidence = field(default_factory=Evidence)
    """The behaviour of gradients, after the attacks."""

    @property
    def correct(self) -> Tensor:
        """Whether the clean example is classified correctly; a tie of the logits is not."""
        return self.clean_margin < 0

    def unbroken(self, radius: float) -> Tensor:
        """Tell per example whether no misclassified point within the radius is known."""
        return self.distance > reach(radius, self.rounding)

    def beyond(self, radius: float) -> Tensor:
        """Tell per example whether no point within the radius is known to be misclassified or doubtful."""
        return torch.minimum(self.distance, self.doubt) > reach(radius, self.rounding)

    def doubted(self, rows: Rows, distance: PerExample) -> None:
        """Record a doubtful point at this distance."""
        self.doubt[rows] = torch.minimum(self.doubt[rows], distance.nan_to_num(nan=0.0))

    def table(self, suite: Suite) -> dict[str, list[Any]]:
        """Return the per-example table, by column."""
        labels = [attack.label for attack in suite.attacks] + [""]  # -1 is the last
        return {
            "id": self.batch.ids.tolist(),
            "label": self.batch.y.tolist(),
            "prediction": self.prediction.tolist(),
            "attack": [labels[number] for number in self.found_by.tolist()],
            "clean_margin": self.clean_margin.tolist(),
            "margin": self.margin.tolist(),
            "distance": self.distance.tolist(),
            "doubt": torch.where(self.finite, self.doubt, 0.0).tolist(),
            "rounding": self.rounding.tolist(),
        }

    def adversarial(self) -> Inputs:
        """Return the nearest misclassified points of the examples that were correct and have one, on the CPU."""
        return self.z[self.found_by >= 0].contiguous().cpu()


def reach(radius: float, rounding: Number) -> Number:
    """Return the largest distance that counts as within the radius, as in `Threat.contains`."""
    return radius * (1 + 1e-6) + rounding
