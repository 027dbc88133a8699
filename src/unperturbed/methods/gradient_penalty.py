"""Input-gradient regularisation."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch

from unperturbed.checks import NOT_NEGATIVE, POSITIVE, check_fields
from unperturbed.curvature.products import cross_entropy_with, dot, gradient_with_graph, input_gradient
from unperturbed.curvature.safeguards import dropout_warning
from unperturbed.methods.base import Method
from unperturbed.networks.modes import clean_batch_stats
from unperturbed.networks.precision import plainly
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inner, Inputs, Model, PerExample, Terms


@dataclass(frozen=True)
class GradientPenalty(Method):
    """l(x) + weight * s^2 / 2, s = eps * |g|_q the first-order growth of the loss over the ball, q dual to its norm.

    With differences this is Finlay & Oberman 2019, https://arxiv.org/abs/1905.11468: s = (l(x + h v) - l(x)) / h, or
    (l(x + h v) - l(x - h v)) / 2h, for v = argmax <g, v> over the ball, a constant. "exact" differentiates s = <g, v>
    itself (Drucker & LeCun 1992, https://doi.org/10.1109/72.165600; Ross & Doshi-Velez 2018,
    https://arxiv.org/abs/1711.09404). The box plays no part. The released code leaves eps out: its `tik` is
    weight * eps^2 for L2, and weight * eps^2 * d for Linf, where it divides |g|_1 by sqrt(d).

    With differences the training forward at x also gives the direction, without a pass of an attack. With batch norm in
    train mode v then follows the gradient of the batch's summed loss, which the statistics couple; the losses along v
    are compared at the clean batch's statistics, as "exact" takes its gradient (in the released code each forward has
    its own).

    Attributes:
        weight: of the penalty.
        form: of s: "forward" differences (an error of order h), "central" ones (h^2, for a forward and a backward
            more), or "exact", by a second derivative.
        step: h, in units of eps.
        square: False: penalise |s| instead of s^2 / 2.
    """

    name: ClassVar[str] = "gradient-penalty"
    ramp: ClassVar[float] = 0.25
    first_order: ClassVar[str] = "--method.form forward"
    weight: float = 1.0
    form: Literal["forward", "central", "exact"] = "forward"
    step: float = 0.1
    square: bool = True

    def __post_init__(self) -> None:
        """Refuse a negative weight, another form, and a step that is not positive."""
        check_fields(self, weight=NOT_NEGATIVE, step=POSITIVE)

    def perturb(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> Inner:
        """Return the inputs as they are."""
        return Inner(batch.x)

    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        """Return the clean loss and the penalty, means over the batch."""
        measure = self._by_gradient if self.form == "exact" else self._by_differences
        with plainly(), clean_batch_stats(model):
            clean, growth = measure(model, batch, threat)
        penalty = growth.square() / 2 if self.square else growth.abs()
        return {"clean": clean.mean(), "penalty": self.weight * penalty.mean()}

    def _by_gradient(self, model: Model, batch: Batch, threat: Threat) -> tuple[PerExample, PerExample]:
        clean, g = gradient_with_graph(model, batch.x, cross_entropy_with(batch.targets))
        return clean, dot(g, _steepest(threat, g.detach()))  # v maximises <g, v>: it can be a constant here, too

    def _by_differences(self, model: Model, batch: Batch, threat: Threat) -> tuple[PerExample, PerExample]:
        loss, leaf, h = cross_entropy_with(batch.targets), batch.x.detach().requires_grad_(), self.step
        clean = loss(model(leaf))
        (g,) = torch.autograd.grad(clean.sum(), leaf, retain_graph=True)
        v = _steepest(threat, g)
        ahead = loss(model(batch.x + h * v))
        if self.form == "forward":
            return clean, (ahead - clean) / h
        return clean, (ahead - loss(model(batch.x - h * v))) / (2 * h)

    def check(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> list[str]:
        """Warn if dropout draws another mask at each point."""
        return [] if self.form == "exact" else dropout_warning(model, batch.x, self.name)

    def examine(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> dict[str, PerExample]:
        """Return s, the first-order growth of the loss over the ball."""
        _, g = input_gradient(model, batch.x, cross_entropy_with(batch.y))
        return {"growth": threat.eps * threat.dual_norm(g)}


def _steepest(threat: Threat, g: Inputs) -> Inputs:
    """Return argmax <g, v> over the ball, without the box; 0 where the gradient is 0."""
    return replace(threat, bounds=None).maximise_linear(torch.zeros_like(g), g)
