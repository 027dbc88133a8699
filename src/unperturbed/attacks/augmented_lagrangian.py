"""ALMA: the norm plus a penalty for the right prediction, whose multiplier and weight adapt to each example."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unperturbed.attacks.points import Look, wide, widths
from unperturbed.checks import AT_LEAST_ONE, POSITIVE, check_fields
from unperturbed.losses import dlr_or_margin
from unperturbed.threat import Threat
from unperturbed.threat.geometry import at_least_something, length
from unperturbed.types import Inputs, Loss, Norm, PerExample

_SHARE, _TINY = 0.9, 1e-8
"""Of the past in the running means: of the multiplier, of RMSprop's squares, and of its momentum."""
_EVERY, _IMPROVED, _FACTOR = 10, 0.95, 1.2
"""Every so many moves, rho of an unbroken example grows by the factor unless the constraint fell to this share."""
_SMALLEST, _LARGEST = 1e-6, 1e12
"""Limits of the multiplier."""
_BEYOND = 1e-4
"""The constraint is that the loss is at least this."""


@dataclass(frozen=True)
class AugmentedLagrangian:
    """Minimise ‖d‖ + P(c; rho, mu) over d by RMSprop with momentum, c = -DLR (Rony et al. 2021).

    https://arxiv.org/abs/2011.11857, algorithm 1, with the penalty P2 of Birgin et al. 2005: mu c + mu rho c^2
    + rho^2 c^3 / 6 for c >= 0, and mu c / (1 - max(rho, 1) c) below. mu becomes a running mean of P's derivative, rho
    grows while there is no break. The rate falls geometrically to a hundredth from the first break on.

    Attributes:
        steps: moves, each a forward and an input gradient.
        rate: of the first move, in units of the box.
    """

    steps: int = 1000
    rate: float = 0.1

    def __post_init__(self) -> None:
        """Refuse numbers that leave nothing to do."""
        check_fields(self, steps=AT_LEAST_ONE, rate=POSITIVE)

    @property
    def loss(self) -> Loss:
        """The difference-of-logits ratio, or the margin where there are fewer than four classes."""
        return dlr_or_margin

    def supports(self, norm: Norm) -> bool:
        """Tell whether the norm has a useful gradient."""
        return norm in ("L2", "L1")

    def begin(self, x: Inputs, start: Inputs, threat: Threat) -> "_Multipliers":
        """Return the first multipliers, and RMSprop's moments."""
        one = torch.ones_like(threat.distance(x, start))
        never = torch.full_like(one, self.steps)
        return _Multipliers(
            one, one.clone(), one * torch.inf, never, torch.ones_like(x), torch.zeros_like(x), widths(threat, x)
        )

    def move(self, x: Inputs, look: Look, k: int, memory: "_Multipliers", threat: Threat) -> Inputs:
        """Return the points after move k."""
        c, moved = _BEYOND - look.value, look.z - x
        memory.first = torch.where((look.margin > 0) & (memory.first > k), k, memory.first)
        if k % _EVERY == 0:
            slow = (memory.first > k) & (c > _IMPROVED * memory.before) & (k > 0)
            memory.rho, memory.before = torch.where(slow, _FACTOR * memory.rho, memory.rho), c
        push = _penalty_slope(c, memory.rho, memory.mu)
        if k > 0:
            memory.mu = torch.lerp(push, memory.mu, _SHARE).clamp(_SMALLEST, _LARGEST)
            push = _penalty_slope(c, memory.rho, memory.mu)
        shorter = moved / at_least_something(length("L2", moved)) if threat.norm == "L2" else moved.sign()
        slope = (shorter - wide(push, x) * look.slope) * memory.width
        memory.squares.lerp_(slope.square(), 1 - _SHARE)
        memory.momentum.mul_(_SHARE).add_(slope / (memory.squares.sqrt() + _TINY))
        spent = (k - memory.first).clamp(min=0) / (self.steps - memory.first).clamp(min=1)
        return x + moved - wide(self.rate * 0.01**spent, x) * memory.width * memory.momentum


def _penalty_slope(c: Tensor, rho: Tensor, mu: Tensor) -> Tensor:
    """Return the derivative of P2 with respect to c."""
    above = mu + 2 * mu * rho * c + rho.square() * c.square() / 2
    below = mu / (1 - rho.clamp(min=1) * c.clamp(max=0)).square()
    return torch.where(c >= 0, above, below)


@dataclass(eq=False)
class _Multipliers:
    """The state of descents."""

    mu: PerExample
    rho: PerExample
    before: PerExample
    """The constraint at the last check."""
    first: PerExample
    """The number of the move that found the first break."""
    squares: Inputs
    momentum: Inputs
    width: Tensor
    """Of the box."""
