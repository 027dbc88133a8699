"""FMN: steps along the gradient, inside a ball that shrinks where the point is misclassified and grows elsewhere."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unperturbed.attacks.points import Look, wide, widths
from unperturbed.checks import AT_LEAST_ONE, POSITIVE, check_fields
from unperturbed.losses import margin
from unperturbed.threat import Threat
from unperturbed.threat.geometry import at_least_something, length
from unperturbed.threat.radii import project_within
from unperturbed.types import Inputs, Loss, Norm, PerExample


@dataclass(frozen=True)
class FastMinimumNorm:
    """z <- P_r(z + a g / |g|_2), g the margin's gradient, P_r the projection on ball and box (Pintor et al. 2021).

    https://arxiv.org/abs/2102.12827, algorithm 1. The radius r becomes (1 - c) times the nearest break's distance or r,
    the smaller one, where z is misclassified, and otherwise (1 + c) r, up to that distance; before the first break it
    is (1 + c) times the distance of the boundary to first order, |z - x| + |f_j - f_y| / |g|_dual. Both a and c fall by
    a cosine. The projection is exact, box included. From a misclassified start the first a is in units of its Euclidean
    distance.

    Attributes:
        steps: moves, each a forward and an input gradient.
        step: the first a, in units of the mean width of the box, or of the start's distance.
        last_step: the last a.
        change: the first c.
        last_change: the last c.
    """

    steps: int = 300
    step: float = 1.0
    last_step: float = 0.01
    change: float = 0.05
    last_change: float = 0.001

    def __post_init__(self) -> None:
        """Refuse numbers that leave nothing to do."""
        check_fields(self, steps=AT_LEAST_ONE, step=POSITIVE, last_step=POSITIVE, change=POSITIVE, last_change=POSITIVE)

    @property
    def loss(self) -> Loss:
        """The margin."""
        return margin

    def supports(self, norm: Norm) -> bool:
        """Tell whether there is a convex ball."""
        return norm in ("Linf", "L2", "L1")

    def begin(self, x: Inputs, start: Inputs, threat: Threat) -> "_Radii":
        """Return the radii; a start other than x is misclassified."""
        distance = threat.distance(x, start)
        far = length("L2", start - x).flatten()
        known = torch.where(distance > 0, distance, torch.inf)
        return _Radii(known.clone(), known, torch.where(distance > 0, far, float(widths(threat, x).mean())))

    def move(self, x: Inputs, look: Look, k: int, memory: "_Radii", threat: Threat) -> Inputs:
        """Return the points after move k."""
        share = (1 + math.cos(math.pi * k / self.steps)) / 2
        step = self.last_step + (self.step - self.last_step) * share
        change = self.last_change + (self.change - self.last_change) * share
        distance, wrong = threat.distance(x, look.z), look.margin > 0
        memory.nearest = torch.where(wrong, torch.minimum(memory.nearest, distance), memory.nearest)
        ahead = distance + look.margin.abs() / at_least_something(threat.dual_norm(look.slope))
        grown = torch.where(memory.nearest.isfinite(), memory.radius, ahead) * (1 + change)
        smaller = torch.minimum(memory.radius, memory.nearest) * (1 - change)
        memory.radius = torch.minimum(torch.where(wrong, smaller, grown), memory.nearest)
        unit = look.slope / at_least_something(length("L2", look.slope))
        z = look.z + wide(step * memory.scale, x) * unit
        return project_within(threat, x, z, memory.radius)


@dataclass(eq=False)
class _Radii:
    """The state of descents, one value for each example."""

    radius: PerExample
    nearest: Tensor
    """The distance of the nearest break so far; infinite before the first."""
    scale: Tensor
    """The unit of the steps."""
