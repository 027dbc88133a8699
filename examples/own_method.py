"""A user's training method, named by its import path, in this folder:

    unperturbed train --data digits --method own_method:Mixed --method.share 0.7 --method.steps 5 --out runs/own-method

`share` is the method's own option. It has none called `steps`, but its maximiser has, so that one is passed on.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from unperturbed.losses import cross_entropy
from unperturbed.maximise.ascent import Maximiser
from unperturbed.maximise.pgd import PGD
from unperturbed.methods.at import cross_entropy_score
from unperturbed.methods.base import Method
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inner, Model, Terms


@dataclass(frozen=True)
class Mixed(Method):
    """share * CE(f(z), y) + (1 - share) * CE(f(x), y), z maximising CE (after Goodfellow et al. 2015, section 6).

    https://arxiv.org/abs/1412.6572, with any maximiser instead of one step.

    Attributes:
        share: of the perturbed inputs.
        maximiser: the inner maximisation of the cross-entropy.
    """

    ramp: ClassVar[float] = 0.25  # eps grows from 0 over the first quarter of the run
    share: float = 0.5
    maximiser: Maximiser = field(default_factory=lambda: PGD(steps=7))

    def perturb(self, model: Model, batch: Batch, threat: Threat, noise: Noise) -> Inner:
        """Maximise the cross-entropy; the network is in eval mode and its weights are frozen."""
        return Inner(self.maximiser(cross_entropy_score(model, batch), batch.x, threat, noise))

    def loss(self, model: Model, batch: Batch, inner: Inner, threat: Threat, noise: Noise) -> Terms:
        """Return the two terms, weighted; their sum is minimised, and each is logged under its name."""
        return {
            "adversarial": self.share * cross_entropy(model(inner.z), batch.targets).mean(),
            "clean": (1 - self.share) * cross_entropy(model(batch.x), batch.targets).mean(),
        }
