"""MART."""

from dataclasses import dataclass, field
from typing import ClassVar

from unperturbed.checks import NOT_NEGATIVE, check_fields
from unperturbed.losses import boosted_cross_entropy, cross_entropy, kl
from unperturbed.maximise.ascent import Maximiser
from unperturbed.maximise.pgd import PGD
from unperturbed.methods.at import cross_entropy_score
from unperturbed.methods.base import Method
from unperturbed.methods.trades import near
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inner, Model, Terms


@dataclass(frozen=True)
class MART(Method):
    """BCE(f(z), y) + beta * KL(f(x) || f(z)) * (1 - p_y(x)), z maximising CE (Wang et al. 2020).

    https://openreview.net/forum?id=rklOg6EFwS, eq. 11, with BCE = -log p_y - log(1 - max_{j != y} p_j). All three
    factors give gradient to the weights.

    Attributes:
        beta: weight of the divergence.
        maximiser: the inner maximisation of the cross-entropy.
    """

    name: ClassVar[str] = "mart"
    ramp: ClassVar[float] = 0.25
    beta: float = 5.0
    maximiser: Maximiser = field(default_factory=lambda: PGD(steps=10))

    def __post_init__(self) -> None:
        """Refuse a negative beta."""
        check_fields(self, beta=NOT_NEGATIVE)

    def perturb(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> Inner:
        """Maximise the cross-entropy."""
        start = near(batch.x, threat, noise)
        return Inner(self.maximiser(cross_entropy_score(model, batch), batch.x, threat, noise, start))

    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        """Return the boosted cross-entropy and the weighted divergence, means over the batch."""
        clean, adversarial = model(batch.x), model(inner.z)
        doubt = -cross_entropy(clean, batch.y).neg().expm1()  # 1 - p_y
        return {
            "boosted": boosted_cross_entropy(adversarial, batch.y, batch.targets).mean(),
            "divergence": self.beta * (kl(adversarial, clean) * doubt).mean(),
        }
