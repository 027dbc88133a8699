"""Training on one-step perturbations: FGSM, and its two repairs."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from unperturbed.checks import NOT_NEGATIVE, POSITIVE, check_fields
from unperturbed.losses import cross_entropy
from unperturbed.maximise.ascent import climb
from unperturbed.maximise.pgd import PGD
from unperturbed.methods.at import AT, cross_entropy_score
from unperturbed.methods.base import Method
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inner, Inputs, Model, Terms


@dataclass(frozen=True)
class FGSM(Method):
    """CE at the maximiser of the linear model of the loss at x (Goodfellow et al. 2015).

    https://arxiv.org/abs/1412.6572, section 4. Prone to catastrophic overfitting: watch the alarm.
    """

    name: ClassVar[str] = "fgsm"
    ramp: ClassVar[float] = 0.25

    def perturb(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> Inner:
        """Return argmax_{z in S(x)} <gradient at x, z>."""
        return Inner(threat.maximise_linear(batch.x, _gradient(model, batch, batch.x)))

    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        """Return the mean cross-entropy at the perturbed inputs."""
        return {"adversarial": cross_entropy(model(inner.z), batch.targets).mean()}

    def stronger(self) -> Method:
        """Return adversarial training with two steps."""
        return AT(PGD(steps=2))


@dataclass(frozen=True)
class RS_FGSM(Method):
    """FGSM from a random start, with a step longer than eps and a projection (Wong et al. 2020).

    https://arxiv.org/abs/2001.03994, algorithm 3. The released code perturbs in train mode, so that batch norm's
    running averages see the attack; here they do not.

    Attributes:
        step_size: in units of eps.
    """

    name: ClassVar[str] = "rs-fgsm"
    ramp: ClassVar[float] = 0.25
    step_size: float = 1.25

    def __post_init__(self) -> None:
        """Refuse a step size that is not positive, or not finite."""
        check_fields(self, step_size=POSITIVE)

    def perturb(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> Inner:
        """Return P(start + step_size * eps * d) for a random start in S(x)."""
        one_step = PGD(steps=1, step_size=self.step_size)
        return Inner(one_step(cross_entropy_score(model, batch), batch.x, threat, noise))

    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        """Return the mean cross-entropy at the perturbed inputs."""
        return {"adversarial": cross_entropy(model(inner.z), batch.targets).mean()}

    def stronger(self) -> Method:
        """Return adversarial training with two steps."""
        return AT(PGD(steps=2))


@dataclass(frozen=True)
class N_FGSM(Method):
    """One step from strong noise, not projected back on the ball (de Jorge et al. 2022).

    https://arxiv.org/abs/2202.01181, algorithm 1. The training points lie up to (noise_size + step_size) * eps away
    from x, outside the threat set, but inside the box.

    Attributes:
        noise_size: radius of the noise, in units of eps.
        step_size: in units of eps.
    """

    name: ClassVar[str] = "n-fgsm"
    ramp: ClassVar[float] = 0.25
    noise_size: float = 2.0
    step_size: float = 1.0

    def __post_init__(self) -> None:
        """Refuse sizes that are negative."""
        check_fields(self, noise_size=NOT_NEGATIVE, step_size=NOT_NEGATIVE)

    def perturb(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> Inner:
        """Return the box's nearest point to start + step_size * eps * d."""
        start = replace(threat, eps=self.noise_size * threat.eps).sample(batch.x, noise)
        direction = threat.steepest_ascent(start, _gradient(model, batch, start))
        reach = replace(threat, eps=(self.noise_size + self.step_size) * threat.eps)
        return Inner(reach.project(batch.x, start + self.step_size * threat.eps * direction))

    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        """Return the mean cross-entropy at the perturbed inputs."""
        return {"adversarial": cross_entropy(model(inner.z), batch.targets).mean()}

    def stronger(self) -> Method:
        """Return adversarial training with two steps."""
        return AT(PGD(steps=2))


def _gradient(model: Model, batch: Batch, z: Inputs) -> Inputs:
    rows = torch.arange(len(z), device=z.device)
    return climb(cross_entropy_score(model, batch), z, rows)[2]
