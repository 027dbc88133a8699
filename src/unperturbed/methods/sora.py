"""SORA: one-step training with shorter steps after curvature."""

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from unperturbed.checks import NOT_NEGATIVE, POSITIVE, SHARE, checked
from unperturbed.curvature.products import cross_entropy_with, dot, input_gradient
from unperturbed.losses import cross_entropy
from unperturbed.maximise.pgd import PGD
from unperturbed.maximise.slopes import usable
from unperturbed.methods.at import AT
from unperturbed.methods.base import Method, sum_over_processes
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inner, Model, PerExample, Terms


class SORA(nn.Module, Method):
    """CE at u + alpha * c * d, u random in S(x), d the steepest ascent there, c ~ U(0, 1) for each feature (SORA 2026).

    https://arxiv.org/abs/2606.00738. alpha = step_size * eps * min(1, bend / (1 - kappa)), where kappa is a running
    average of sum <d, g'> / sum <d, g> over the examples of a batch: the slope along d at the end over that at u, 1
    where the loss is linear (d without regard to the box). g' is the gradient of the training backward at the points,
    at no extra cost. The points lie up to (1 + step_size) * eps away from x, outside the threat set, but inside the
    box. For Linf, d is the sign of g.

    The released code averages the quotients of the examples, which those with a tiny g dominate. It takes g in
    train mode, as g' is. Here it is taken in eval mode, as in every attack, so that for a network with batch norm kappa
    also includes the lag of the running averages: its first epochs have shorter steps.

    Attributes:
        step_size: largest alpha, in units of eps.
        bend: the share of the slope that may be lost along a step before steps get shorter.
        rate: share of the newest batch in the running average kappa, which begins at 0.99.
    """

    name: ClassVar[str] = "sora"
    ramp: ClassVar[float] = 0.25
    kappa: Tensor

    @checked(step_size=NOT_NEGATIVE, bend=POSITIVE, rate=SHARE)
    def __init__(self, step_size: float = 2.0, bend: float = 0.02, rate: float = 0.05) -> None:
        super().__init__()
        self.step_size, self.bend, self.rate = step_size, bend, rate
        self.register_buffer("kappa", torch.tensor(0.99))

    def perturb(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> Inner:
        """Return the box's nearest points, as a leaf that the training backward gives its gradient to."""
        start = threat.sample(batch.x, noise.fold(0))
        gradient = usable(input_gradient(model, start, cross_entropy_with(batch.targets))[1])
        alpha = self.step_size * threat.eps * (self.bend / (1 - self.kappa).clamp(min=self.bend)).to(start)
        share = noise.fold(1).uniform(start.shape[1:], start.dtype)
        reach = replace(threat, eps=(1 + self.step_size) * threat.eps)
        z = reach.project(batch.x, start + alpha * share * threat.steepest_ascent(start, gradient)).requires_grad_()
        slope = threat.dual_norm(gradient)  # along the direction of steepest ascent, the box aside
        direction = replace(threat, bounds=None).steepest_ascent(start, gradient)
        reuse = {"direction": direction, "slope": slope, "scale": torch.zeros_like(slope)}
        return Inner(z, reuse, log={"kappa": torch.zeros_like(slope) + self.kappa.to(slope)})

    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        """Return the mean cross-entropy at the perturbed inputs.

        The backward records the factor of each example's loss, 1 / n unless a wrapper weights it.
        """

        def note(scale: PerExample) -> None:
            inner.reuse["scale"].copy_(scale)

        losses = cross_entropy(model(inner.z), batch.targets)
        if losses.requires_grad:
            losses.register_hook(note)  # type: ignore[no-untyped-call]
        return {"adversarial": losses.mean()}

    def after_step(self, batch: Batch, inner: Inner, terms: Terms, threat: Threat) -> None:
        """Update kappa by the slopes of the step."""
        if inner.z.grad is None:
            raise RuntimeError("SORA needs the gradient that the training backward leaves on inner.z; there is none.")
        after = dot(inner.reuse["direction"], inner.z.grad).sum()
        before = (inner.reuse["slope"] * inner.reuse["scale"]).sum()
        after, before = sum_over_processes(torch.stack([after, before]))
        ratio = torch.where(
            before > 0, (after / before).clamp(-1, 1), self.kappa.to(after)
        )  # a zero slope gives no information
        self.kappa = torch.lerp(self.kappa, ratio.to(self.kappa), self.rate)

    def stronger(self) -> Method:
        """Return adversarial training with two steps."""
        return AT(PGD(steps=2))
