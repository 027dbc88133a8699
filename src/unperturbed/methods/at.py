"""Adversarial training."""

from dataclasses import dataclass, field
from typing import ClassVar

from unperturbed.losses import cross_entropy
from unperturbed.maximise.ascent import Maximiser
from unperturbed.maximise.pgd import PGD
from unperturbed.methods.base import Method
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inner, Inputs, Model, PerExample, Rows, Score, Terms


@dataclass(frozen=True)
class AT(Method):
    """max_{z in S(x)} CE(f(z), y) (Madry et al. 2018, https://arxiv.org/abs/1706.06083, eq. 2.1).

    Attributes:
        maximiser: the inner maximisation of the cross-entropy.
    """

    name: ClassVar[str] = "at"
    ramp: ClassVar[float] = 0.25
    maximiser: Maximiser = field(default_factory=lambda: PGD(steps=7))

    def perturb(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> Inner:
        """Maximise the cross-entropy."""
        return Inner(self.maximiser(cross_entropy_score(model, batch), batch.x, threat, noise))

    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        """Return the mean cross-entropy at the perturbed inputs."""
        return {"adversarial": cross_entropy(model(inner.z), batch.targets).mean()}


def cross_entropy_score(model: Model, batch: Batch) -> Score:
    """Return the score z -> CE(f(z), y)."""

    def score(z: Inputs, rows: Rows) -> PerExample:
        return cross_entropy(model(z), batch.y[rows])

    return score
