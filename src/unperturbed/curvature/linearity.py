"""The distance of the loss from linear around an input."""

from dataclasses import dataclass

from unperturbed.curvature.products import cross_entropy_with, dot, input_gradient
from unperturbed.losses import cross_entropy
from unperturbed.maximise.ascent import Maximiser
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Model, PerExample, Rows


@dataclass(frozen=True, eq=False)
class Linearity:
    """The result of `linearity_gap`, one value an example; |far - clean| <= gap + |slope| (eq. 6 of the paper)."""

    z: Inputs
    gap: PerExample
    """gamma: |l(z) - l(x) - <z - x, gradient>|."""
    slope: PerExample
    """<z - x, gradient>."""
    clean: PerExample
    far: PerExample


def least_linear(
    model: Model, batch: Batch, threat: Threat, noise: Noise, maximiser: Maximiser, *, exact: bool = True
) -> Inputs:
    """Return a point of S(x) where the loss is far from its linear model at x, searched from a random one.

    With `exact=False` the search treats the displacement in the linear model as a constant, as released code does.
    """
    clean, gradient = input_gradient(model, batch.x, cross_entropy_with(batch.y))

    def gap(z: Inputs, rows: Rows) -> PerExample:
        moved = (z if exact else z.detach()) - batch.x[rows]
        return (cross_entropy(model(z), batch.y[rows]) - clean[rows] - dot(moved, gradient[rows])).abs()

    return maximiser(gap, batch.x, threat, noise, threat.sample(batch.x, noise))


def linearity_gap(model: Model, batch: Batch, threat: Threat, noise: Noise, maximiser: Maximiser) -> Linearity:
    """Return gamma(eps, x) = max_{z in S(x)} |l(z) - l(x) - <z - x, gradient>|, a lower bound of it by search.

    (Qin et al. 2019, https://arxiv.org/abs/1907.02610, eq. 5.) For a network under attack; float32 or better.
    """
    z = least_linear(model, batch, threat, noise, maximiser)
    clean, gradient = input_gradient(model, batch.x, cross_entropy_with(batch.y))
    far = cross_entropy(model(z), batch.y).detach()
    slope = dot(z - batch.x, gradient)
    return Linearity(z, (far - clean - slope).abs(), slope, clean, far)
