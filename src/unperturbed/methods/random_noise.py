"""Training on random points of the threat set."""

from dataclasses import dataclass, replace
from typing import ClassVar

from unperturbed.checks import NOT_NEGATIVE, check_fields
from unperturbed.losses import cross_entropy
from unperturbed.methods.base import Method
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inner, Model, Terms


@dataclass(frozen=True)
class RandomNoise(Method):
    """CE(f(z), y) at a random z in S(x): the baseline for any attack (compare Bishop 1995).

    https://doi.org/10.1162/neco.1995.7.1.108. No attack is run, so a step costs what ordinary training's does.

    Attributes:
        size: radius of the noise, in units of eps.
    """

    name: ClassVar[str] = "noise"
    size: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a size that is negative or not finite."""
        check_fields(self, size=NOT_NEGATIVE)

    def perturb(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> Inner:
        """Return a random point of S(x), or of a smaller or larger one."""
        return Inner(replace(threat, eps=self.size * threat.eps).sample(batch.x, noise))

    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        """Return the mean cross-entropy at the random points."""
        return {"noisy": cross_entropy(model(inner.z), batch.targets).mean()}
