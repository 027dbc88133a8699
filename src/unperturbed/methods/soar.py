"""Second-order adversarial regularisation."""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch

from unperturbed.checks import NOT_NEGATIVE, POSITIVE, check_fields
from unperturbed.curvature.products import (
    cross_entropy_with,
    dot,
    forward_difference,
    gradient_with_graph,
    root,
)
from unperturbed.curvature.safeguards import dropout_warning, piecewise_linear_warning
from unperturbed.maximise.ascent import Maximiser
from unperturbed.maximise.pgd import PGD
from unperturbed.methods.at import cross_entropy_score
from unperturbed.methods.base import Method
from unperturbed.networks.modes import clean_batch_stats
from unperturbed.networks.precision import plainly
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inner, Inputs, Model, PerExample, Terms


@dataclass(frozen=True)
class SOAR(Method):
    """l(x') + weight * (r^2 + 1) / 2 * |A u|_2, A = [[H, g], [g', 1]] at x', u ~ N(0, I) (Ma et al. 2020).

    https://arxiv.org/abs/2004.01832. With w = (v, 1), l(x' + v) is w' A w / 2 - 1/2 above l(x') to second order, which
    (r^2 + 1) / 2 * |A|_2 bounds where r is the longest |v|_2 of the ball (eps * sqrt(d) for Linf); the mean of |A u|
    is at least 0.79 of |A|_2 and at most A's Frobenius norm, mostly near it. H u is taken by forward differences;
    both gradients carry gradient to the weights. Against masked gradients, x' is where `maximiser` ends in the ball
    of radius eps / 2, and that is r's ball, too. The released loop also trains on the cross-entropy at x'; it clips
    the gradient of the whole regulariser, here each example's value is damped instead. Batch norm as in the training
    forward at x'.

    Attributes:
        weight: of the regulariser; the bound's own is 1, under which small networks hardly fit.
        step: of the differences, in units of the inputs, along u of length sqrt(d).
        clip: beyond this size a = |A u| counts as clip * (1 + log(a / clip)), whose gradient is clip / a of the plain
            one's; None: always a itself.
        maximiser: finds x', climbing the cross-entropy.
    """

    name: ClassVar[str] = "soar"
    ramp: ClassVar[float] = 0.25
    weight: float = 0.03
    step: float = 0.01
    clip: float | None = 10.0
    maximiser: Maximiser = field(default_factory=lambda: PGD(steps=1))

    def __post_init__(self) -> None:
        """Refuse a negative weight, and a step or a clip that is not positive."""
        check_fields(self, weight=NOT_NEGATIVE, step=POSITIVE, clip=POSITIVE)

    def perturb(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> Inner:
        """Maximise the cross-entropy within half of eps."""
        return Inner(self.maximiser(cross_entropy_score(model, batch), batch.x, _half(threat), noise))

    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        """Return the loss at x' and the bound on its increase within half of eps, means over the batch."""
        loss, u = cross_entropy_with(batch.targets), noise.fold(2).normal(inner.z.shape[1:], inner.z.dtype)
        with plainly(), clean_batch_stats(model):
            near, g = gradient_with_graph(model, inner.z, loss)
            curved = forward_difference(
                lambda z: gradient_with_graph(model, z, loss)[1], inner.z, g, u, self.step
            )  # fmt: skip
        size = self._damped(_size(curved, g, u, noise))
        bound = (_half(threat).longest(batch.x) ** 2 + 1) / 2 * size
        return {"near": near.mean(), "curvature": self.weight * bound.mean()}

    def check(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> list[str]:
        """Warn if the curvature is that of the softmax alone, or noise of dropout."""
        return piecewise_linear_warning(model, batch.x, self.name) + dropout_warning(model, batch.x, self.name)

    def _damped(self, size: PerExample) -> PerExample:
        if self.clip is None:
            return size
        return torch.where(size > self.clip, self.clip * (1 + (size / self.clip).clamp(min=1).log()), size)


def _half(threat: Threat) -> Threat:
    return replace(threat, eps=threat.eps / 2)


def _size(curved: Inputs, g: Inputs, u: Inputs, noise: Noise) -> PerExample:
    """Return |A (u, t)|_2 = |(H u + t g, <g, u> + t)|_2 for one more random number t, given H u."""
    t = noise.fold(3).normal((1,) * (g.dim() - 1), g.dtype)
    above, last = curved + t * g, dot(g, u) + t.flatten()
    return root(dot(above, above) + last.square())
