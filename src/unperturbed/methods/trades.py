"""TRADES."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from unperturbed.checks import NOT_NEGATIVE, check_fields
from unperturbed.losses import cross_entropy, kl
from unperturbed.maximise.ascent import Maximiser
from unperturbed.maximise.pgd import PGD
from unperturbed.methods.base import Method
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inner, Inputs, Model, PerExample, Rows, Terms


@dataclass(frozen=True)
class TRADES(Method):
    """CE(f(x), y) + beta * max_{z in S(x)} KL(f(x) || f(z)) (Zhang et al. 2019, https://arxiv.org/abs/1901.08573).

    The search starts at x + 0.001 N(0, 1), since the gradient of the divergence is zero at x itself. Weights get
    gradient through both branches.

    Attributes:
        beta: weight of the divergence.
        maximiser: the inner maximisation of the divergence.
    """

    name: ClassVar[str] = "trades"
    ramp: ClassVar[float] = 0.25
    beta: float = 6.0
    maximiser: Maximiser = field(default_factory=lambda: PGD(steps=10))

    def __post_init__(self) -> None:
        """Refuse a negative beta."""
        check_fields(self, beta=NOT_NEGATIVE)

    def perturb(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> Inner:
        """Maximise the divergence from the clean prediction."""
        with torch.no_grad():
            clean = model(batch.x)

        def score(z: Inputs, rows: Rows) -> PerExample:
            return kl(model(z), clean[rows])

        return Inner(self.maximiser(score, batch.x, threat, noise, near(batch.x, threat, noise)))

    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        """Return the clean cross-entropy and the weighted divergence, means over the batch."""
        clean = model(batch.x)
        return {
            "clean": cross_entropy(clean, batch.targets).mean(),
            "divergence": self.beta * kl(model(inner.z), clean).mean(),
        }


def near(x: Inputs, threat: Threat, noise: Noise) -> Inputs:
    """Return x + 0.001 N(0, 1), projected on S(x): the start that TRADES and MART use."""
    return threat.project(x, x + 1e-3 * noise.normal(x.shape[1:], x.dtype))
