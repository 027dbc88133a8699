"""The worst of several runs of a maximiser."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from unperturbed.checks import AT_LEAST_ONE, check_fields
from unperturbed.maximise.ascent import Maximiser
from unperturbed.maximise.pgd import PGD
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Inputs, Score


@dataclass(frozen=True)
class Restarts(Maximiser):
    """Run a maximiser `count` times with independent noise and keep, for each example, the end of highest score.

    Attributes:
        maximiser: the maximiser to repeat.
        count: number of runs.
    """

    name: ClassVar[str] = "restarts"
    maximiser: Maximiser = field(default_factory=PGD)
    count: int = 2

    def __post_init__(self) -> None:
        """Refuse a count below 1."""
        check_fields(self, count=AT_LEAST_ONE)

    def __call__(self, score: Score, x: Inputs, threat: Threat, noise: Noise, start: Inputs | None = None) -> Inputs:
        """Return the best end of each example; only the first run begins at `start`."""
        rows = torch.arange(len(x), device=x.device)
        best_z, best_value = x, torch.full((len(x),), -torch.inf, device=x.device, dtype=x.dtype)
        for restart in range(self.count):
            z = self.maximiser(score, x, threat, noise.fold(restart), start if restart == 0 else None)
            with torch.no_grad():
                values = score(z, rows)
            value = values[1] if isinstance(values, tuple) else values
            better = value > best_value
            best_z = torch.where(better.view(-1, *[1] * (x.dim() - 1)), z, best_z)
            best_value = torch.where(better, value, best_value)
        return best_z
