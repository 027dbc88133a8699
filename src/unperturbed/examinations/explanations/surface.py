"""The loss over a square around an input: a plane if gradients predict it, rugged if not."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from unperturbed.checks import checked
from unperturbed.curvature.products import cross_entropy_with, dot, input_gradient
from unperturbed.errors import InputError
from unperturbed.losses import cross_entropy
from unperturbed.networks.modes import under_attack
from unperturbed.networks.precision import as_reported
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Model, PerExample

AT_ONCE = 256
"""Number of points in a batch."""


@dataclass(frozen=True, eq=False)
class Surface:
    """The result of `loss_surface`; index i belongs to the gradient direction, j to the random one.

    Attributes:
        along: the positions on both axes, in units of eps, rising, with 0 in the middle.
        values: the loss at x + along[i] u + along[j] w, for each example.
        slopes: <u, g> and <w, g> for each example, with g the loss's gradient at x: the slopes of the tangent plane.
    """

    along: tuple[float, ...]
    values: Float[Tensor, "n points points"]
    slopes: Float[Tensor, "n 2"]

    @property
    def clean(self) -> PerExample:
        """The loss at the examples themselves."""
        middle = len(self.along) // 2
        return self.values[:, middle, middle]

    @property
    def tangent(self) -> Float[Tensor, "n points points"]:
        """The loss's linear model at x, l(x) + a <u, g> + b <w, g>, at the same points."""
        steps = torch.tensor(self.along, dtype=self.values.dtype, device=self.values.device)
        by_u, by_w = (self.slopes[:, axis, None] * steps for axis in (0, 1))
        plane: Tensor = self.clean[:, None, None] + by_u[:, :, None] + by_w[:, None, :]
        return plane

    @property
    def roughness(self) -> PerExample:
        """The largest |surface - tangent plane| with |a|, |b| <= 1, as far as the points go: 0 for a linear loss."""
        inside = [k for k, step in enumerate(self.along) if abs(step) <= 1]
        first, last = inside[0], inside[-1] + 1
        return (self.values - self.tangent)[:, first:last, first:last].abs().flatten(1).amax(dim=1)


@checked()
def loss_surface(
    model: Model, batch: Batch, threat: Threat, noise: Noise, points: int = 33, reach: float = 1.0
) -> Surface:
    """Return l(x + a u + b w), the cross-entropy at points x points pairs (a, b) of [-reach, reach]^2, per example.

    u maximises <g, u> over ‖u‖ <= eps, with g the gradient of l at x, so that a = 1, b = 0 is FGSM's point; w does the
    same for a random direction instead of g (compare the loss surfaces of Qin et al. 2019,
    https://arxiv.org/abs/1907.02610, whose u comes from PGD). Both lie in the ball only: without the box, the square is
    flat. Where g is 0, so is u. Each example is computed separately, so that other examples have no effect.

    Raises:
        InputError: if `points` is no odd number from 3 on, if `reach` is not positive and finite, or without examples.
    """
    if points < 3 or points % 2 == 0:
        raise InputError(f"points is {points}, but must be odd and at least 3: the example itself is in the middle.")
    if not 0 < reach < float("inf"):
        raise InputError(f"reach is {reach}, but must be positive and finite: it is a length, in units of eps.")
    if len(batch.x) == 0:
        raise InputError("There is not a single example to draw the loss around: give at least one.")
    along = tuple(reach * (2 * k / (points - 1) - 1) for k in range(points))
    ball = replace(threat, bounds=None)
    values, slopes = [], []
    with under_attack(model), as_reported(batch.x.device), torch.no_grad():
        for row in range(len(batch.x)):
            x, y = batch.x[row : row + 1], batch.y[row : row + 1]
            _, gradient = input_gradient(model, x, cross_entropy_with(y))
            aimless = noise.rows(torch.tensor([row], device=x.device)).normal(x.shape[1:], x.dtype)
            u, w = (ball.maximise_linear(torch.zeros_like(x), direction) for direction in (gradient, aimless))
            values.append(_over_square(model, Batch(x, y, batch.ids[row : row + 1]), u, w, along))
            slopes.append(torch.cat([dot(u, gradient), dot(w, gradient)]))
    return Surface(along, torch.stack(values), torch.stack(slopes))


def _over_square(
    model: Model, one: Batch, u: Inputs, w: Inputs, along: tuple[float, ...]
) -> Float[Tensor, "points points"]:
    steps = torch.tensor(along, dtype=one.x.dtype, device=one.x.device)
    shape = (-1, *[1] * (one.x.dim() - 1))
    losses = [
        cross_entropy(model(one.x + a.view(shape) * u + b.view(shape) * w), one.y.expand(len(a)))
        for a, b in (part.T for part in torch.split(torch.cartesian_prod(steps, steps), AT_ONCE))
    ]
    return torch.cat(losses).view(len(along), len(along))
