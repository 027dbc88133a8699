"""Free adversarial training."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from unperturbed.losses import cross_entropy
from unperturbed.maximise.slopes import usable
from unperturbed.methods.base import Method
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inner, Model, Terms


class Free(nn.Module, Method):
    """One backward pass serves the weights and the perturbation; a batch is replayed 8 times (Shafahi et al. 2019).

    https://arxiv.org/abs/1904.12843, algorithm 1. The perturbation belongs to a position in the batch and persists from
    batch to batch. An epoch has as many optimisation steps as any other method's, so it sees an eighth of the data.
    """

    name: ClassVar[str] = "free"
    repeats: ClassVar[int] = 8
    ramp: ClassVar[float] = 0.25
    delta: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("delta", torch.zeros(0))

    def perturb(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> Inner:
        """Return x + delta inside S(x), as a leaf that the training backward gives its gradient to."""
        size = len(batch.x)
        delta = self.delta[:size].to(batch.x) if len(self.delta) >= size else torch.zeros_like(batch.x)
        return Inner(threat.project(batch.x, batch.x + delta).requires_grad_())

    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        """Return the mean cross-entropy at the perturbed inputs."""
        return {"adversarial": cross_entropy(model(inner.z), batch.targets).mean()}

    def after_step(self, batch: Batch, inner: Inner, terms: Terms, threat: Threat) -> None:
        """Move delta by eps along the gradient of the training step, and keep it inside S(x) - x."""
        z = inner.z.detach()
        if inner.z.grad is None:
            raise RuntimeError("Free needs the gradient that the training backward leaves on inner.z; there is none.")
        moved = threat.project(batch.x, z + threat.eps * threat.steepest_ascent(z, usable(inner.z.grad)))
        self.delta = torch.cat([moved - batch.x, self.delta[len(moved) :].to(moved)])  # for a smaller batch
