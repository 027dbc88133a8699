"""Curvature regularisation."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from unperturbed.checks import NOT_NEGATIVE, POSITIVE, check_fields
from unperturbed.curvature.products import (
    cross_entropy_with,
    dot,
    gradient_with_graph,
    input_gradient,
    root,
)
from unperturbed.curvature.safeguards import dropout_warning, piecewise_linear_warning
from unperturbed.methods.base import Method
from unperturbed.networks.modes import clean_batch_stats
from unperturbed.networks.precision import plainly
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inner, Inputs, Model, PerExample, Terms


@dataclass(frozen=True)
class CURE(Method):
    """l(x) + weight * |g(x + h u) - g(x)|_2, u = sign(g) / |sign(g)|_2 (Moosavi-Dezfooli et al. 2019).

    https://arxiv.org/abs/1811.09716, eq. 6. The paper's penalty is the square of the length, its released code's the
    length; the code also takes the mean's gradients, those of an example over the size of the batch. Both gradients
    carry gradient to the weights; u is found in eval mode and does not. The code's penalty is of the network in eval
    mode, ours of the one that is trained, at the clean batch's statistics of batch norm.

    Attributes:
        weight: of the penalty; the released class has 4, its notebook 1.
        step: h, an L2 length in units of the inputs; None: that of the longest displacement in the ball (eps * sqrt(d)
            for Linf, 1.7 for CIFAR-10 at 8/255; eps for L2 and L1), which grows with eps over its ramp.
        direction: u is along the gradient's "sign" or along the "gradient".
        squared: penalise the square of the length.
    """

    name: ClassVar[str] = "cure"
    ramp: ClassVar[float] = 0.25
    weight: float = 1.0
    step: float | None = None
    direction: Literal["sign", "gradient"] = "sign"
    squared: bool = False

    def __post_init__(self) -> None:
        """Refuse a negative weight, a step that is not positive, and another direction."""
        check_fields(self, weight=NOT_NEGATIVE, step=POSITIVE)

    def perturb(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> Inner:
        """Return the inputs as they are, and the displacement h u to measure the curvature along."""
        return Inner(batch.x, {"displacement": self._displacement(model, batch, threat)})

    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        """Return the clean loss and the penalty, means over the batch."""
        loss = cross_entropy_with(batch.targets)
        with plainly(), clean_batch_stats(model):
            clean, g = gradient_with_graph(model, batch.x, loss)
            _, ahead = gradient_with_graph(model, batch.x + inner.reuse["displacement"], loss)
        turn = dot(ahead - g, ahead - g)
        penalty = turn if self.squared else root(turn)
        return {"clean": clean.mean(), "curvature": self.weight * penalty.mean()}

    def check(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> list[str]:
        """Warn if the curvature is that of the softmax alone, or noise of dropout."""
        return piecewise_linear_warning(model, batch.x, self.name) + dropout_warning(model, batch.x, self.name)

    def examine(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> dict[str, PerExample]:
        """Return |g(x + h u) - g(x)|_2."""
        loss = cross_entropy_with(batch.y)
        _, g = input_gradient(model, batch.x, loss)
        _, ahead = input_gradient(model, batch.x + self._displacement(model, batch, threat), loss)
        return {"turn": dot(ahead - g, ahead - g).sqrt()}

    def _displacement(self, model: Model, batch: Batch, threat: Threat) -> Inputs:
        """Return h u; 0 where the gradient is 0."""
        _, g = input_gradient(model, batch.x, cross_entropy_with(batch.y))
        along = g.sign() if self.direction == "sign" else g
        h = threat.longest(batch.x) if self.step is None else self.step
        return Threat("L2", h, None).maximise_linear(torch.zeros_like(g), along)
