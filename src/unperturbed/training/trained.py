"""The result of a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from unperturbed.findings import Interval, Shown
from unperturbed.methods.base import Method


@dataclass(frozen=True, eq=False, repr=False)
class Trained(Shown):
    """The result of a run.

    Attributes:
        model: the caller's network, with the best weights, in eval mode.
        clean_accuracy: of those weights, on the examples of the probe.
        robust_accuracy: likewise, under ten steps of projected ascent: a quick look, not an evaluation.
        best_epoch: the epoch of the weights, from 1: the most robust under the probe, among those that meet the
            method's limit, if it has one and an epoch met it.
        epochs: number of finished epochs.
        seconds: of training, with probes.
        warnings: adjustments of settings, and the alarm's warnings.
        folder: the run folder, or None.
        conclusions: the method's sentences on the last epoch, such as whether a limit was met.
        feasible: whether the epoch of the weights met the method's limit; None without a limit, and if a loss is
            limited but a running average of the weights is kept.
        method: the method at the end, with its memory, from the last epoch.
        held_out: whether the probe's examples were held out (not if `validation` leaves none).
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

    def __str__(self) -> str:
        """Return the headline."""
        examples = "held-out examples" if self.held_out else "training examples"
        folder = "" if self.folder is None else f", in {self.folder}"
        return (
            f"{type(self.model).__name__}, clean {self.clean_accuracy}, robust {self.robust_accuracy} on {examples} "
            f"(ten steps: a quick look); weights of epoch {self.best_epoch} of {self.epochs}{folder}"
        )


def at_chance(clean: Interval, robust: Interval, classes: int) -> str | None:
    """Return a warning if a run ends at chance: its accuracies could be those of a constant answer.

    Clean accuracy is at chance if its interval does not lie above chance, robust accuracy if its interval contains
    chance (an accuracy below chance means successful attacks). There is no warning for fewer than 20 examples.
    """
    chance = 1 / classes
    low = {"clean": clean.low <= chance, "robust": robust.low <= chance <= robust.high}
    names = [name for name, is_low in low.items() if is_low]
    if clean.n < 20 or not names:
        return None
    return (
        f"The {' and the '.join(names)} accuracy on the probe's {clean.n} examples cannot be told from chance "
        f"({chance:.0%}): the network may have the same output everywhere. Train longer, let eps grow (ramp), or lower "
        "lr."
    )
