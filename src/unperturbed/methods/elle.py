"""Efficient local linearity enforcement: one-step training whose loss is held straight along random chords."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from unperturbed.checks import NOT_NEGATIVE, SHARE, check_fields, checked
from unperturbed.curvature.safeguards import dropout_warning
from unperturbed.losses import cross_entropy
from unperturbed.maximise.pgd import PGD
from unperturbed.methods.at import AT
from unperturbed.methods.base import Method, mean_over_processes
from unperturbed.methods.fgsm import FGSM
from unperturbed.networks.modes import clean_batch_stats
from unperturbed.networks.precision import plainly
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inner, Model, PerExample, Terms


@dataclass(frozen=True)
class ELLE(Method):
    """CE at FGSM's points + weight * mean of [l(x_c) - (1 - a) l(x_a) - a l(x_b)]^2 (Abad Rocamora et al. 2024).

    https://arxiv.org/abs/2401.11618: x_a and x_b are random points of S(x), a ~ U(0, 1), and x_c =
    (1 - a) x_a + a x_b lies on the chord between them, so that the term is 0 where the loss is linear. All four losses
    carry gradient to the weights; there is no second derivative. Batch norm's statistics are those of the adversarial
    points. The released code draws x_a and x_b from the ball without the box, normalises the three batches together
    with separate statistics, and takes two optimiser steps per batch.

    Attributes:
        weight: of the squared distance from the chord; 1000 is the released one for CIFAR-10 and eps up to 8/255. Where
            training diverges (a larger eps with batch norm), lower it.
    """

    name: ClassVar[str] = "elle"
    ramp: ClassVar[float] = 0.25
    weight: float = 1000.0

    def __post_init__(self) -> None:
        """Refuse a negative weight."""
        check_fields(self, weight=NOT_NEGATIVE)

    def perturb(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> Inner:
        """Return FGSM's points."""
        return FGSM().perturb(model, batch, threat, noise)

    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        """Return the mean cross-entropy at the perturbed inputs and the weighted mean square of the bend."""
        adversarial, bend = _adversarial_and_bend(model, batch, inner, threat, noise)
        return {"adversarial": adversarial.mean(), "linearity": self.weight * bend.square().mean()}

    def check(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> list[str]:
        """Warn of dropout."""
        return dropout_warning(model, batch.x, "elle")

    def stronger(self) -> Method:
        """Return adversarial training with two steps."""
        return AT(PGD(steps=2))


class ELLE_A(nn.Module, Method):
    """ELLE whose weight is 0 until the loss bends unusually much, and decays again (Abad Rocamora et al. 2024).

    https://arxiv.org/abs/2401.11618. E is the mean square of the bend. After a step in which E exceeds
    mean + sensitivity * standard deviation of all earlier ones (of three at least), the weight becomes `weight`, after
    any other it is multiplied by `decay`; the next step uses it. While eps ramps up, E mostly grows, and the weight is
    mostly at its highest.

    Attributes:
        weight: the weight after a jump; the released one for every eps. If training diverges, lower it.
        sensitivity: standard deviations above the mean at which it jumps.
        decay: its factor after every other step.
    """

    name: ClassVar[str] = "elle-a"
    ramp: ClassVar[float] = 0.25
    current: Tensor
    count: Tensor
    mean: Tensor
    squares: Tensor

    @checked(weight=NOT_NEGATIVE, sensitivity=NOT_NEGATIVE, decay=SHARE)
    def __init__(self, weight: float = 4000.0, sensitivity: float = 2.0, decay: float = 0.99) -> None:
        super().__init__()
        self.weight, self.sensitivity, self.decay = weight, sensitivity, decay
        self.register_buffer("current", torch.tensor(0.0))
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("mean", torch.tensor(0.0))
        self.register_buffer("squares", torch.tensor(0.0))  # of the distances from the mean, summed

    def perturb(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> Inner:
        """Return FGSM's points, with an entry for the square of each example's bend, which the loss fills in."""
        z = FGSM().perturb(model, batch, threat, noise).z
        unknown = torch.zeros(len(z), dtype=z.dtype, device=z.device)
        return Inner(z, log={"nonlinearity": unknown, "weight": unknown + self.current})

    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        """Return the mean cross-entropy at the perturbed inputs and the weighted mean square of the bend.

        The squares are stored in `inner.log`, because at weight 0 the term does not show them.
        """
        adversarial, bend = _adversarial_and_bend(model, batch, inner, threat, noise)
        square = bend.square()
        inner.log["nonlinearity"].copy_(square.detach())
        return {"adversarial": adversarial.mean(), "linearity": self.current * square.mean()}

    def after_step(self, batch: Batch, inner: Inner, terms: Terms, threat: Threat) -> None:
        """Set the weight of the next step, and count this step's E in (Welford 1962)."""
        nonlinearity = mean_over_processes(inner.log["nonlinearity"].mean()).to(self.mean)
        usual = self.mean + self.sensitivity * (self.squares / self.count.clamp(min=1)).sqrt()
        jumps = (self.count > 2) & (nonlinearity > usual)
        self.current = torch.where(jumps, self.weight, self.decay * self.current)
        before = nonlinearity - self.mean
        self.count = self.count + 1
        self.mean = self.mean + before / self.count
        self.squares = self.squares + before * (nonlinearity - self.mean)

    def check(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> list[str]:
        """Warn of dropout."""
        return dropout_warning(model, batch.x, "elle-a")

    def stronger(self) -> Method:
        """Return adversarial training with two steps."""
        return AT(PGD(steps=2))


def _adversarial_and_bend(
    model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise
) -> tuple[PerExample, PerExample]:
    """Return the loss at the perturbed inputs, and l(x_c) - (1 - a) l(x_a) - a l(x_b)."""
    x_a, x_b = (threat.sample(batch.x, noise.fold(k)) for k in (0, 1))
    a = noise.fold(2).uniform((1,) * (batch.x.dim() - 1), batch.x.dtype)
    x_c = torch.lerp(x_a, x_b, a)
    with plainly(), clean_batch_stats(model):
        points = (inner.z, x_a, x_b, x_c)  # the first one sets the statistics
        adversarial, l_a, l_b, l_c = (cross_entropy(model(point), batch.targets) for point in points)
    a = a.flatten()
    return adversarial, l_c - (1 - a) * l_a - a * l_b
