"""Logit pairing: ALP, and CLP in its two readings. Known to hide gradients: evaluate with many steps and restarts."""

from dataclasses import dataclass, field
from typing import ClassVar

from unperturbed.checks import NOT_NEGATIVE, check_fields
from unperturbed.losses import cross_entropy
from unperturbed.maximise.ascent import Maximiser
from unperturbed.maximise.pgd import PGD
from unperturbed.methods.at import cross_entropy_score
from unperturbed.methods.base import Method
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inner, Logits, Model, PerExample, Terms


@dataclass(frozen=True)
class ALP(Method):
    """CE(f(x), y) + CE(f(z), y) + weight * ||f(x) - f(z)||^2 / k, z maximising CE (Kannan et al. 2018).

    Adversarial logit pairing, https://arxiv.org/abs/1803.06373, section 4.1; k is the number of classes.

    Attributes:
        weight: of the pairing.
        maximiser: the inner maximisation of the cross-entropy.
    """

    name: ClassVar[str] = "alp"
    ramp: ClassVar[float] = 0.25
    weight: float = 0.5
    maximiser: Maximiser = field(default_factory=lambda: PGD(steps=10))

    def __post_init__(self) -> None:
        """Refuse a negative weight."""
        check_fields(self, weight=NOT_NEGATIVE)

    def perturb(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> Inner:
        """Maximise the cross-entropy."""
        return Inner(self.maximiser(cross_entropy_score(model, batch), batch.x, threat, noise))

    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        """Return both cross-entropies and the weighted pairing, means over the batch."""
        clean, adversarial = model(batch.x), model(inner.z)
        return {
            "clean": cross_entropy(clean, batch.targets).mean(),
            "adversarial": cross_entropy(adversarial, batch.targets).mean(),
            "pairing": self.weight * (clean - adversarial).square().mean(),
        }


@dataclass(frozen=True)
class CLP(Method):
    """CE(f(x), y) + weight * ||f(x) - f(z)||_2, z maximising CE.

    Clean logit pairing as later comparisons read it (the baseline of Robey et al. 2021,
    https://arxiv.org/abs/2110.15767): a clean and an adversarial image are paired. `clp-original` is the method that
    Kannan et al. describe.

    Attributes:
        weight: of the pairing.
        maximiser: the inner maximisation of the cross-entropy.
    """

    name: ClassVar[str] = "clp"
    ramp: ClassVar[float] = 0.25
    weight: float = 1.0
    maximiser: Maximiser = field(default_factory=lambda: PGD(steps=10))

    def __post_init__(self) -> None:
        """Refuse a negative weight."""
        check_fields(self, weight=NOT_NEGATIVE)

    def perturb(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> Inner:
        """Maximise the cross-entropy."""
        return Inner(self.maximiser(cross_entropy_score(model, batch), batch.x, threat, noise))

    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        """Return the clean cross-entropy and the weighted pairing, means over the batch."""
        clean = model(batch.x)
        return {
            "clean": cross_entropy(clean, batch.targets).mean(),
            "pairing": self.weight * _length(clean - model(inner.z)).mean(),
        }


@dataclass(frozen=True)
class CLPOriginal(Method):
    """CE(f(x'), y) + weight * ||f(x'_i) - f(x'_j)||^2 / k for random pairs of noisy clean images (Kannan et al. 2018).

    Clean logit pairing, https://arxiv.org/abs/1803.06373, section 4.2: x' is x with Gaussian noise, and the partner
    j of an image is another image of the batch, of any class. No attack is run.

    Attributes:
        weight: of the pairing.
        sigma: standard deviation of the noise, in units of eps.
    """

    name: ClassVar[str] = "clp-original"
    ramp: ClassVar[float] = 0.25
    weight: float = 0.5
    sigma: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a negative weight."""
        check_fields(self, weight=NOT_NEGATIVE, sigma=NOT_NEGATIVE)

    def perturb(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> Inner:
        """Return the noisy inputs, inside the box."""
        low, high = threat.limits(batch.x)
        noisy = batch.x + self.sigma * threat.radii(batch.x) * noise.normal(batch.x.shape[1:], batch.x.dtype)
        return Inner(noisy.clamp(low, high))

    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        """Return the cross-entropy and the weighted pairing with the next image of the (shuffled) batch."""
        logits = model(inner.z)
        return {
            "noisy": cross_entropy(logits, batch.targets).mean(),
            "pairing": self.weight * (logits - logits.roll(1, dims=0)).square().mean(),
        }


def _length(v: Logits) -> PerExample:
    """Return the L2 norm, with a gradient of 0 where it is 0."""
    return (v.square().sum(dim=1) + 1e-12).sqrt()
