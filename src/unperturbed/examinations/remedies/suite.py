"""The attacks after the remedies: on the surrogate networks, every success verified on the real network."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from unperturbed.attacks.base import Attack, AttackResult, padded_logits
from unperturbed.attacks.eot import averaged
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.attacks.multi_targeted import MultiTargeted
from unperturbed.attacks.square import Square
from unperturbed.examinations.remedies.candidates import Candidate
from unperturbed.losses import margin, targeted_dlr_or_margin, unit_cross_entropy
from unperturbed.maximise.apgd import APGD
from unperturbed.maximise.pgd import PGD
from unperturbed.networks.modes import under_attack
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Labels, Loss, Model, PerExample, Rows

if TYPE_CHECKING:
    from unperturbed.examinations.audited import Audited

DRAWS = 12
"""Number of forwards per step in the means of attacks on random networks."""


@dataclass(frozen=True)
class MeanClimb(Attack):
    """PGD on the mean of a loss over draws, to its last point.

    For networks that draw random numbers: the iterate of largest margin would depend on lucky draws.

    Attributes:
        label: how tables name the attack.
        loss: what is climbed.
        steps: of PGD.
        restarts: one.
        draws: forwards a step.
    """

    label: str
    loss: Loss
    steps: int
    restarts: int = 1
    draws: int = DRAWS

    def __call__(self, model: Model, batch: Batch, threat: Threat, noise: Noise, batch_size: int) -> AttackResult:
        """Attack every example."""
        points = []
        for rows in torch.split(torch.arange(len(batch.y), device=batch.y.device), batch_size):
            x, y = batch.x[rows], batch.y[rows]

            score = averaged(_Loss(model, y, self.loss), self.draws)
            points.append(PGD(steps=self.steps)(score, x, threat, noise.rows(rows)))
        z = torch.cat(points) if points else batch.x
        margins = margin(padded_logits(model, z, batch_size), batch.y)
        passes = self.steps * self.draws * len(z)
        return AttackResult(z, margins, margins.isfinite(), torch.ones_like(batch.y), passes + len(z), passes)


@dataclass(frozen=True, eq=False)
class _Loss:
    model: Model
    y: Labels
    loss: Loss

    def __call__(self, z: Inputs, rows: Rows) -> PerExample:
        return self.loss(self.model(z), self.y[rows])


@dataclass(frozen=True)
class OnSurrogate(Attack):
    """An attack that climbs another network than the one it attacks, with the margins of the attacked one.

    Attributes:
        label: how tables name the attack.
        attack: what climbs.
        surrogate: the network that it climbs.
        restarts: of the attack.
        draws: of the attack.
    """

    label: str
    attack: Attack
    surrogate: nn.Module
    restarts: int = 1
    draws: int = 1

    def __call__(self, model: Model, batch: Batch, threat: Threat, noise: Noise, batch_size: int) -> AttackResult:
        """Attack every example of the batch on the surrogate."""
        with under_attack(self.surrogate):
            result = self.attack(self.surrogate, batch, threat, noise, batch_size)
        margins = margin(padded_logits(model, result.z, batch_size), batch.y)
        finite = result.finite & margins.isfinite()
        return AttackResult(
            result.z, margins, finite, result.restart, result.passes + len(batch.y), result.backwards, result.queries
        )


def remedied_suite(audited: "Audited", strength: float = 1.0) -> Suite:
    """Return the attacks on the two best candidates, and one without gradients; `strength` scales their steps."""
    best, *candidates = audited.candidates or [Candidate("the network as it is", audited.deployed)]
    second = candidates[0] if candidates else best
    random = audited.behaviour.is_random
    draws = DRAWS if random else 1

    def steps(number: int) -> int:
        return max(5, round(number * strength))

    def on(candidate: Candidate, attack: Attack) -> OnSurrogate:
        label = f"{attack.label}, {candidate.name}"
        return OnSurrogate(label, attack, candidate.network, attack.restarts, draws)

    if random:
        climbs = [
            on(best, MeanClimb("EOT-CE", unit_cross_entropy, steps(60))),
            on(best, MeanClimb("EOT-margin", margin, steps(60))),
            on(second, MeanClimb("EOT-CE", unit_cross_entropy, steps(60))),
        ]
        return Suite("audit-rand", tuple(climbs), "mean over draws, after the remedies of the audit")
    attacks: list[Attack] = [
        on(best, GradientAttack("PGD-margin", margin, PGD(steps=steps(40)), restarts=3)),
        on(second, GradientAttack("PGD-CE", unit_cross_entropy, PGD(steps=steps(40)), restarts=2)),
    ]
    targeted = MultiTargeted("APGD-T", targeted_dlr_or_margin, APGD(steps=steps(50)), targets=9)
    exact = next((candidate for candidate in (best, *candidates) if not candidate.dear), best)
    attacks += [on(candidate, targeted) for candidate in dict.fromkeys((exact, best))]  # means end climbs too early
    attacks += [Square(queries=steps(1000))]
    return Suite("audit", tuple(attacks), "upper bound, after the remedies of the audit")
