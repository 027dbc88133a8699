"""Training for randomised smoothing."""

from dataclasses import dataclass
from typing import ClassVar

from unperturbed.checks import NOT_NEGATIVE, check_fields
from unperturbed.losses import cross_entropy
from unperturbed.methods.base import Method
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inner, Model, Terms


@dataclass(frozen=True)
class Smoothing(Method):
    """CE(f(x + sigma * eps * N(0, 1)), y): training for a smoothed classifier (Cohen et al. 2019).

    https://arxiv.org/abs/1902.02918, section 3.3 (Gaussian data augmentation). The noise is in units of eps and leaves
    ball and box alike, as the certificate's does: a vote under noise sigma certifies L2 radii of about that length. The
    method trains for the vote, not for the network alone.

    Attributes:
        sigma: standard deviation of the noise in each feature, in units of eps.
    """

    name: ClassVar[str] = "smoothing"
    ramp: ClassVar[float] = 0.25
    sigma: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a negative sigma."""
        check_fields(self, sigma=NOT_NEGATIVE)

    def perturb(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> Inner:
        """Return the noisy inputs, outside the box as well."""
        return Inner(batch.x + self.sigma * threat.radii(batch.x) * noise.normal(batch.x.shape[1:], batch.x.dtype))

    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        """Return the mean cross-entropy at the noisy inputs."""
        return {"noisy": cross_entropy(model(inner.z), batch.targets).mean()}
