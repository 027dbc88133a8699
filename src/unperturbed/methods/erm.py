"""Empirical risk minimisation."""

from dataclasses import dataclass
from typing import ClassVar

from unperturbed.losses import cross_entropy
from unperturbed.methods.base import Method
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inner, Model, Terms


@dataclass(frozen=True)
class ERM(Method):
    """CE(f(x), y): ordinary training, the point of comparison."""

    name: ClassVar[str] = "erm"

    def perturb(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> Inner:
        """Return the inputs as they are."""
        return Inner(batch.x)

    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        """Return the mean cross-entropy."""
        return {"clean": cross_entropy(model(batch.x), batch.targets).mean()}
