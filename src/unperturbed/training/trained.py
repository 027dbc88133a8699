"""The result of a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from unperturbed.findings import Interval
from unperturbed.methods.base import Method


@dataclass(frozen=True, eq=False)
class Trained:
    """The result of a run.

    Attributes:
        model: the network that was given, with the best weights, in eval mode.
        clean_accuracy: of those weights, on the examples that the probe looks at.
        robust_accuracy: likewise, under ten steps of projected ascent: a quick look, not an evaluation.
        best_epoch: the epoch, from 1, that the weights are from: the most robust one under the probe, of those that
            meet the method's limit, if it has one and any does.
        epochs: how many were run.
        seconds: of training, probes included.
        warnings: what was adjusted, and what the alarm recognised.
        folder: the run folder, or None.
        conclusions: what the method says of its end, the last epoch's: whether a limit was met, say.
        feasible: whether the epoch that the weights are from has met the method's limit; None where it has none, and
            where a loss is limited but a running average of the weights is kept.
        method: as it is at the end, its memory included: that of the last epoch, too.
        held_out: whether the probe's examples were held out, as they are unless `validation` leaves none.
    """

    model: nn.Module
    clean_accuracy: Interval
    robust_accuracy: Interval
    best_epoch: int
    epochs: int
    seconds: float
    warnings: tuple[str, ...]
    folder: Path | None
    conclusions: tuple[str, ...] = ()
    feasible: bool | None = None
    method: Method | None = None
    held_out: bool = True

    def json(self) -> dict[str, Any]:
        """Return the result as plain values."""
        return {
            "run": None if self.folder is None else str(self.folder),
            "clean_accuracy": self.clean_accuracy.value,
            "robust_accuracy": self.robust_accuracy.value,
            "validation_examples": self.clean_accuracy.n,
            "held_out": self.held_out,
            "best_epoch": self.best_epoch,
            "epochs": self.epochs,
            "seconds": self.seconds,
            "warnings": list(self.warnings),
            "conclusions": list(self.conclusions),
            "feasible": self.feasible,
        }


def at_chance(clean: Interval, robust: Interval, classes: int) -> str | None:
    """Return a warning if a run ends at chance: its accuracies could be those of a constant answer.

    Clean accuracy is at chance where its interval does not lie above it, robust accuracy where its interval holds it
    (below it, points were searched and found: that is no chance). Under 20 examples nothing is said.
    """
    chance = 1 / classes
    low = {"clean": clean.low <= chance, "robust": robust.low <= chance <= robust.high}
    names = [name for name, is_low in low.items() if is_low]
    if clean.n < 20 or not names:
        return None
    return (
        f"The {' and the '.join(names)} accuracy on the probe's {clean.n} examples cannot be told from chance "
        f"({chance:.0%}): the network may answer alike everywhere. Train longer, let eps grow (ramp), or lower lr."
    )
