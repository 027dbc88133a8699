"""The ball of a norm between L1 and L2, cut by a box, with exact linear maximisation."""

from dataclasses import dataclass

import torch
from torch import Tensor

from unperturbed.errors import InputError
from unperturbed.threat.shares import Shares, times_shares
from unperturbed.threat.threat import Threat
from unperturbed.types import Bounds, Inputs, PerExample


@dataclass(frozen=True, eq=False)
class LpBall:
    """The points z of the box with (sum |z - x|^p)^(1/p) <= radius, in input units.

    `shares` are 0 for features that never change, and 1 for the others.

    Raises InputError unless 1 < p < infinity and the radius is positive and finite.
    """

    p: float
    radius: float
    bounds: Bounds = (0.0, 1.0)
    shares: Shares = None

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not 1 < self.p < float("inf"):
            raise InputError(f"p is {self.p}, but must be above 1 and finite: Threat has the norms L1 and Linf.")
        if not 0 < self.radius < float("inf"):
            raise InputError(f"The radius is {self.radius}, but must be positive and finite, in input units.")

    def distance(self, x: Inputs, z: Inputs) -> PerExample:
        """Return the p-norm of z - x per example."""
        distance: Tensor = torch.linalg.vector_norm((z - x).flatten(1), self.p, dim=1)
        return distance

    def contains(self, x: Inputs, z: Inputs) -> Tensor:
        """Tell per example whether z lies in the box, exactly, and in the ball, up to rounding as in `Threat`."""
        low, high = self._box.limits(x)
        boxed = ((z >= low) & (z <= high)).flatten(1).all(dim=1) & (self._box.fixed(x, z) == z).flatten(1).all(dim=1)
        return boxed & (self.distance(x, z) <= self.radius * (1 + 1e-6) + self._box.rounding(x))

    @torch.no_grad()
    def maximise_linear(self, x: Inputs, gradient: Inputs) -> Inputs:
        """Return the point of the set where <gradient, z> is largest, exactly; x where the gradient is 0.

        By the optimality conditions the move is min(room_i, s |g_i|^(1 / (p - 1))), with one scale s per example at
        which its p-norm is the radius. The scale follows from sorting the values of s at which a coordinate meets the
        box (Boreiko et al. 2022, https://arxiv.org/abs/2205.07972, proposition 1).
        """
        low, high = self._box.limits(x)
        g = times_shares(gradient, self.shares).double().flatten(1)
        g = g / g.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(g.dtype).tiny)
        room = torch.where(gradient > 0, high - x, x - low).double().flatten(1).clamp(min=0)
        shape = g.abs() ** (1 / (self.p - 1))
        scale = _scale(room, shape, self.p, self.radius)
        move = torch.minimum(room, scale * shape).nan_to_num(nan=0.0) * g.sign()
        return self._box.boxed(x + move.view_as(x).to(x.dtype))

    @property
    def _box(self) -> Threat:
        return Threat("Linf", 0.0, self.bounds, self.shares)


def _scale(room: Tensor, shape: Tensor, p: float, radius: float) -> Tensor:
    """Return s with sum min(room, s shape)^p = radius^p per row; infinite where all of the room is not enough."""
    meets = torch.where(shape > 0, room / shape, torch.inf)
    meets, order = meets.sort(dim=1)
    full, open_ = room.gather(1, order) ** p, shape.gather(1, order) ** p
    full = torch.where(meets.isfinite(), full, 0.0)
    remaining = open_.flip(1).cumsum(1).flip(1)  # of the coordinates from this one on
    spent = torch.cat([torch.zeros_like(full[:, :1]), full.cumsum(1)], dim=1)
    remaining = torch.cat([remaining, torch.zeros_like(remaining[:, :1])], dim=1)
    at = torch.where(meets.isfinite(), spent[:, :-1] + meets**p * remaining[:, :-1], torch.inf)
    k = (at <= radius**p).sum(dim=1, keepdim=True)  # so many coordinates are at the box
    rest, weight = (radius**p - spent.gather(1, k)).clamp(min=0), remaining.gather(1, k)
    return torch.where(weight > 0, (rest / weight) ** (1 / p), torch.inf)
