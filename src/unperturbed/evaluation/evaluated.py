"""A network evaluated under one or several threats: the outcomes, their 8-bit images, and the headline."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from unperturbed.evaluation.quantize import Quantised
from unperturbed.evaluation.union import Union, union
from unperturbed.findings import Outcome
from unperturbed.runs.files import slug
from unperturbed.runs.verify import write_sealed
from unperturbed.threat import Threat

SHOWN = ("threat", "n", "clean_accuracy", "robust_accuracy", "interval", "doubts")
"""The values of an outcome in a curve over radii."""


@dataclass(frozen=True, eq=False)
class Evaluated:
    """A network evaluated at one or several radii of a threat, or under several threats.

    Attributes:
        threats: one, the radii of one, or several.
        outcomes: by threat.
        quantised: by threat, the adversarial examples as 8-bit images; None if not requested.
        chosen: the place of the headline among radii; None: the headline is the worst case over several threats.
    """

    threats: tuple[Threat, ...]
    outcomes: tuple[Outcome, ...]
    quantised: tuple[Quantised | None, ...]
    chosen: int | None = 0

    @cached_property
    def headline(self) -> Outcome | Union:
        """The requested outcome, or the worst case over several threats."""
        return union(self.outcomes) if self.chosen is None else self.outcomes[self.chosen]

    def json(self) -> dict[str, Any]:
        """Return the headline as plain values, with the curve over radii or the outcomes under several threats."""
        values = [
            outcome.json() | ({} if images is None else {"quantised": images.json()})
            for outcome, images in zip(self.outcomes, self.quantised, strict=True)
        ]
        if self.chosen is None:
            return self.headline.json() | {"threats": values}
        return values[self.chosen] | ({"curve": self.curve()} if len(values) > 1 else {})

    def curve(self) -> list[dict[str, Any]]:
        """Return the robust accuracy at each radius, as plain values."""
        return [
            {"eps": threat.eps}
            | {key: outcome.json()[key] for key in SHOWN}
            | {"attacks": broken_by(outcome), "warnings": list(outcome.warnings)}
            for threat, outcome in zip(self.threats, self.outcomes, strict=True)
        ]

    def write(self, folder: Path, run: Path) -> None:
        """Write the curve over radii, or the worst case over several threats, of the run into the folder of results."""
        suite = self.outcomes[0].suite
        if self.chosen is None:
            name = slug(suite, "union", *(outcome.threat for outcome in self.outcomes))
            write_sealed(folder / f"{name}.json", {"run": str(run)} | self.json())
        elif len(self.outcomes) > 1:
            write_sealed(folder / f"{suite}-curve-{self.threats[0].norm}.json", {"curve": self.curve()})


def headline_of(threats: Sequence[Threat], requested: Threat | None) -> int | None:
    """Return the index of the requested radius, else of the largest; None for several threats."""
    if requested is None and len(threats) > 1:
        return None
    radii = [threat.eps for threat in threats]
    return radii.index(requested.eps if requested is not None and requested.eps in radii else max(radii))


def broken_by(outcome: Outcome) -> dict[str, int]:
    """Return the number of examples broken by each attack; attacks at another radius are named with it."""
    names = [name for name in outcome.examples["attack"] if name]
    return {name: names.count(name) for name in dict.fromkeys(names)}
