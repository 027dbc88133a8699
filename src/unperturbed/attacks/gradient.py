"""Attacks that climb a loss along its gradient."""

from dataclasses import dataclass

from unperturbed.attacks.base import Attack, Found
from unperturbed.losses import cross_entropy, margin
from unperturbed.maximise.ascent import Ascent, search
from unperturbed.maximise.pgd import PGD
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Loss, Model, PerExample, Rows


@dataclass(frozen=True)
class GradientAttack(Attack):
    """Climb `loss` from every example, restart until it breaks, and keep the iterate of largest margin.

    Attributes:
        label: how tables name the attack.
        loss: what is climbed.
        ascent: how.
        restarts: at most this many climbs an example.
    """

    label: str
    loss: Loss
    ascent: Ascent
    restarts: int = 1

    def __call__(self, model: Model, batch: Batch, threat: Threat, noise: Noise, places: int) -> Found:
        """Attack every example; iterates are ranked by margin, whatever is climbed."""

        def score(z: Inputs, rows: Rows) -> tuple[PerExample, PerExample]:
            logits, y = model(z), batch.y[rows]
            return self.loss(logits, y), margin(logits, y).detach()

        best = search(self.ascent, score, batch.x, threat, noise, self.restarts, places)
        return Found(best.z, best.rank, best.finite, best.restart, best.passes)


@dataclass(frozen=True)
class Suite:
    """Attacks that run one after the other on what is still standing.

    Attributes:
        name: as on the command line.
        attacks: in order.
        note: what a reader of the number must know.
    """

    name: str
    attacks: tuple[Attack, ...]
    note: str


PGD_SUITE: Suite = Suite(
    "pgd",
    (
        GradientAttack("PGD-CE", cross_entropy, PGD(steps=50), restarts=10),
        GradientAttack("PGD-margin", margin, PGD(steps=50), restarts=10),
    ),
    "upper bound only: no AutoAttack",
)
