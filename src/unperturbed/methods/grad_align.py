"""FGSM with gradient alignment."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from unperturbed.checks import NOT_NEGATIVE, check_fields
from unperturbed.curvature.products import cross_entropy_with, dot, gradient_with_graph, input_gradient
from unperturbed.curvature.safeguards import dropout_warning
from unperturbed.losses import cross_entropy
from unperturbed.maximise.pgd import PGD
from unperturbed.methods.at import AT
from unperturbed.methods.base import Method
from unperturbed.networks.modes import running_stats
from unperturbed.networks.precision import plainly
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inner, Inputs, Model, PerExample, Terms


@dataclass(frozen=True)
class GradAlign(Method):
    """l(z) + weight * (1 - cos(g(x), g(e))), z by FGSM, e random in S(x) (Andriushchenko & Flammarion 2020).

    https://arxiv.org/abs/2007.02617, eq. 5: if the gradient stays aligned within the ball, one step suffices to attack.
    Only g(e) carries gradient to the weights; g(x) is FGSM's, at no extra cost. Both are gradients, for the labels,
    of the network normalised by its running averages (the released code: by each batch); examples where one of them is
    zero are left out of the mean. Here e lies inside the box as well.

    Attributes:
        weight: of the misalignment. The released code's for CIFAR-10: 0.027, 0.063, 0.112, 0.2, 0.356, 0.632, 1.124
            and 2.0 at eps of 1, 4, 6, 8, 10, 12, 14 and 16 / 255; for SVHN 1.657, 1.976, 2.223, 2.5, 2.812 and 3.162
            at 1, 4, 6, 8, 10 and 12 / 255.
    """

    name: ClassVar[str] = "grad-align"
    ramp: ClassVar[float] = 0.25
    weight: float = 0.2

    def __post_init__(self) -> None:
        """Refuse a negative weight."""
        check_fields(self, weight=NOT_NEGATIVE)

    def perturb(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> Inner:
        """Return argmax_{z in S(x)} <g(x), z>, and g(x)."""
        with plainly():  # rounding in bfloat16 would count as misalignment
            _, g = input_gradient(model, batch.x, cross_entropy_with(batch.y))
        return Inner(threat.maximise_linear(batch.x, g), {"gradient": g})

    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        """Return the mean cross-entropy at z, and the misalignment."""
        # before the forward that moves the averages: g(x) is of the same averages
        with plainly(), running_stats(model):
            _, g = gradient_with_graph(model, threat.sample(batch.x, noise), cross_entropy_with(batch.y))
        cosine, defined = _cosine(inner.reuse["gradient"], g)
        worst = cross_entropy(model(inner.z), batch.targets).mean()
        misaligned = ((1 - cosine) * defined).sum() / defined.sum().clamp(min=1)
        return {"adversarial": worst, "misalignment": self.weight * misaligned}

    def check(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> list[str]:
        """Warn if dropout changes the direction of the gradient."""
        return dropout_warning(model, batch.x, self.name)

    def examine(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> dict[str, PerExample]:
        """Return the cosine, 0 where it is not defined."""
        points = (batch.x, threat.sample(batch.x, noise))
        cosine, _ = _cosine(*(input_gradient(model, z, cross_entropy_with(batch.y))[1] for z in points))
        return {"alignment": cosine}

    def stronger(self) -> Method:
        """Return adversarial training with two steps."""
        return AT(PGD(steps=2))


def _cosine(g: Inputs, h: Inputs) -> tuple[PerExample, PerExample]:
    """Return the cosines, and 1 where both gradients are long enough to have one, else 0."""
    (u, defined), (v, too) = _unit(g), _unit(h)
    return dot(u, v), defined * too


def _unit(g: Inputs) -> tuple[Inputs, PerExample]:
    """Return g / |g|_2, and 1 where the square of the length is a normal number; else 0 and 0."""
    axes = tuple(range(1, g.dim()))
    peak = g.detach().abs().amax(axes, keepdim=True)
    defined = peak > torch.finfo(g.dtype).tiny ** 0.5
    scaled = torch.where(defined, g / torch.where(defined, peak, 1.0), 1.0)
    unit = scaled / dot(scaled, scaled).sqrt().view(peak.shape) * defined
    return unit, defined.flatten().to(g.dtype)
