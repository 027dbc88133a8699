"""SCORPIO."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch

from unperturbed.checks import AT_LEAST_ONE, NOT_NEGATIVE, POSITIVE, check_fields
from unperturbed.curvature.products import (
    DIFFERENCE,
    LossOnLogits,
    central_difference,
    cross_entropy_with,
    dot,
    forward_difference,
    gradient_with_graph,
    hessian_product,
    input_gradient,
)
from unperturbed.curvature.quadratic import Quadratic
from unperturbed.curvature.safeguards import dropout_warning, piecewise_linear_warning
from unperturbed.losses import cross_entropy
from unperturbed.maximise.frank_wolfe import FrankWolfe
from unperturbed.maximise.pgd import PGD
from unperturbed.maximise.slopes import usable
from unperturbed.methods.at import cross_entropy_score
from unperturbed.methods.base import Method
from unperturbed.networks.modes import clean_batch_stats
from unperturbed.networks.precision import plainly
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inner, Inputs, Model, PerExample, Rows, Terms

SHORT = 0.5
"""The smallest step for which differences of gradients in bfloat16 exceed their rounding."""


@dataclass(frozen=True)
class SCORPIO(Method):
    """(1 - weight) * l(x) + weight * l(z), z the worst case of a quadratic model of the loss around x.

    Second-order robust training (Tsiligkaridis & Roberts 2020, https://arxiv.org/abs/2009.04923). Q(z) =
    <g, z - x> + 1/2 <z - x, H (z - x)> is maximised by Frank-Wolfe over S(x), from x + eps g / |g|_p, in the steps
    2 / (k + 2) (eq. 3, 4 and 7). With `step` 1 and forward differences this is Frank-Wolfe on the loss itself.

    Attributes:
        steps: of Frank-Wolfe. Forward differences take steps + 1 gradients in all, since the one at x is used again.
        weight: of the worst case; 1 leaves the clean loss out, above 1 it counts negative.
        step: of the differences, in units of the displacement. Below 0.5 they are taken in the precision of the weights
            even if training runs in bfloat16, whose rounding hides shorter ones.
        product: how H v is taken: by "forward" differences, "central" ones (a gradient more a step), or "exact".
        value: "loss-gap" trains on l(z) - l(x), "quadratic" on Q(z), through g and H.
    """

    name: ClassVar[str] = "scorpio"
    ramp: ClassVar[float] = 0.25
    first_order: ClassVar[str] = "--method.product forward and --method.value loss-gap"
    steps: int = 3
    weight: float = 1.0
    step: float = 0.5
    product: Literal["forward", "central", "exact"] = "forward"
    value: Literal["loss-gap", "quadratic"] = "loss-gap"

    def __post_init__(self) -> None:
        """Raise InputError for steps, weights and choices out of range."""
        check_fields(self, steps=AT_LEAST_ONE, weight=NOT_NEGATIVE, step=POSITIVE)

    def perturb(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> Inner:
        """Maximise the quadratic model."""
        with plainly() if self.step < SHORT and self.product != "exact" else nullcontext():
            return Inner(self._maximise(self._model_at(model, batch), threat, noise))

    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        """Return the clean loss and the weighted gap, or the loss at z alone where the weight is 1."""
        if self.value == "quadratic":
            return self._quadratic_loss(model, batch, inner.z)
        worst = cross_entropy(model(inner.z), batch.targets).mean()
        if self.weight == 1:
            return {"worst": worst}
        clean = cross_entropy(model(batch.x), batch.targets).mean()
        return {"clean": clean, "gap": self.weight * (worst - clean)}

    def check(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> list[str]:
        """Warn if the only curvature is that of the softmax, and if dropout would count as curvature."""
        quadratic = self.value == "quadratic"
        curved = quadratic or self.product == "exact" or self.step < 0.1
        warnings = piecewise_linear_warning(model, batch.x, self.name) if curved else []
        return warnings + (dropout_warning(model, batch.x, self.name) if quadratic else [])

    def examine(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> dict[str, PerExample]:
        """Return measures of the quality of the quadratic model and its maximiser.

        `modelled` is Q(z), a model of `change`, l(z) - l(x); `ratio` is that of their sums over the batch, since a
        single example may divide by almost 0; `fw_gap` is 0 at a stationary point of Q and bounds the missing part
        where Q is concave; `distortion` is |z - x|_2 over the largest possible; `beyond` is the further increase of the
        loss by twenty steps of PGD, and `beyond_bound` = M |v|^3 / 3 its bound by the paper's theorem, M estimated from
        the change of the Hessian along v.
        """
        loss, rows = cross_entropy_with(batch.y), torch.arange(len(batch.x), device=batch.x.device)
        quadratic = self._model_at(model, batch)
        z = self._maximise(quadratic, threat, noise)
        v, uphill = z - batch.x, quadratic.gradient(z, rows)
        curved = _curved(model, batch.x, v, loss)
        turned = _curved(model, z, v, loss) - curved
        lipschitz = dot(turned, turned).sqrt() / dot(v, v).clamp(min=1e-30)
        worst = PGD(steps=20)(cross_entropy_score(model, batch), batch.x, threat, noise, z)
        with torch.no_grad():
            clean, perturbed, beyond = (loss(model(point)) for point in (batch.x, z, worst))
        modelled, change = dot(quadratic.gradient_at_x + curved / 2, v), perturbed - clean
        total = modelled.sum()
        return {
            "modelled": modelled,
            "change": change,
            "ratio": torch.where(total == 0, 1.0, change.sum() / total).expand_as(change),
            "fw_gap": dot(threat.maximise_linear(batch.x, uphill) - z, uphill),
            "distortion": threat.distortion(batch.x, z),
            "beyond": beyond - perturbed,
            "beyond_bound": lipschitz * dot(v, v) ** 1.5 / 3,
        }

    def stronger(self) -> Method:
        """Return the method with twice the steps."""
        return replace(self, steps=2 * self.steps)

    def _model_at(self, model: Model, batch: Batch) -> Quadratic:
        """Return the quadratic model around x; forward differences reuse the gradient at x."""

        def gradient(z: Inputs, rows: Rows) -> Inputs:
            return usable(input_gradient(model, z, cross_entropy_with(batch.y[rows]))[1])

        at_x = usable(input_gradient(model, batch.x, cross_entropy_with(batch.y))[1])
        products: dict[str, Callable[[Inputs, Rows], Inputs]] = {
            "forward": lambda v, rows: forward_difference(
                lambda z: gradient(z, rows), batch.x[rows], at_x[rows], v, self.step
            ),
            "central": lambda v, rows: central_difference(lambda z: gradient(z, rows), batch.x[rows], v, self.step),
            "exact": lambda v, rows: hessian_product(model, batch.x[rows], v, cross_entropy_with(batch.y[rows])),
        }
        return Quadratic(batch.x, at_x, products[self.product])

    def _maximise(self, quadratic: Quadratic, threat: Threat, noise: Noise) -> Inputs:
        """Return the end point of Frank-Wolfe on the quadratic model; if the gradient is zero, it starts at random."""
        x, g = quadratic.x, quadratic.gradient_at_x
        shape = (-1, *[1] * (x.dim() - 1))
        peak = g.flatten(1).abs().amax(dim=1).view(shape)
        g = g / torch.where(peak > 0, peak, 1.0)  # the squares of a small gradient would be 0
        size = threat.distance(torch.zeros_like(g), g).view(shape)
        along = threat.project(x, x + threat.eps * g / size.clamp(min=1.0))
        start = torch.where(size > 0, along, threat.sample(x, noise))
        return FrankWolfe(self.steps)(quadratic, x, threat, noise, start)

    def _quadratic_loss(self, model: Model, batch: Batch, z: Inputs) -> Terms:
        """Return the clean loss and weight * Q(z) = <g, v> + <g(x + h v) - g, v> / 2h, with its graph."""
        loss, v = cross_entropy_with(batch.targets), z - batch.x
        with plainly(), clean_batch_stats(model):
            clean, g = gradient_with_graph(model, batch.x, loss)
            _, ahead = gradient_with_graph(model, batch.x + self.step * v, loss)
        modelled = dot(g, v) + dot(ahead - g, v) / (2 * self.step)
        return {"clean": clean.mean(), "gap": self.weight * modelled.mean()}


def _curved(model: Model, x: Inputs, v: Inputs, loss: LossOnLogits) -> Inputs:
    """Return H v, by differences where an operation of the network has no second derivative."""
    try:
        return hessian_product(model, x, v, loss)
    except RuntimeError:
        return central_difference(lambda z: input_gradient(model, z, loss)[1], x, v, DIFFERENCE)
