"""The attacks after the remedies: on the networks with a visible gradient, each success verified on the real one."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from unperturbed.attacks.base import Attack, AttackResult, padded_logits
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
from unperturbed.types import Batch, Model

if TYPE_CHECKING:
    from unperturbed.examinations.audited import Audited

DRAWS = 10
"""Forwards a step that attacks on random networks take the mean of."""


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
            found = self.attack(self.surrogate, batch, threat, noise, batch_size)
        margins = margin(padded_logits(model, found.z, batch_size), batch.y)
        finite = found.finite & margins.isfinite()
        return AttackResult(
            found.z, margins, finite, found.restart, found.passes + len(batch.y), found.backwards, found.queries
        )


def remedied_suite(audited: "Audited", strength: float = 1.0) -> Suite:
    """Return the attacks on the two best candidates, and one without gradients; `strength` scales their steps."""
    best, *others = audited.candidates or [Candidate("the network as it is", audited.deployed)]
    second = others[0] if others else best
    random = audited.behaviour.is_random
    draws = DRAWS if random else 1

    def steps(number: int) -> int:
        return max(5, round(number * strength))

    def on(candidate: Candidate, attack: Attack) -> OnSurrogate:
        label = f"{attack.label}, {candidate.name}"
        return OnSurrogate(label, attack, candidate.network, attack.restarts, draws)

    attacks: list[Attack] = [
        on(best, GradientAttack("PGD-margin", margin, PGD(steps=steps(40)), restarts=1 if random else 3, draws=draws)),
        on(second, GradientAttack("PGD-CE", unit_cross_entropy, PGD(steps=steps(40)), 1 if random else 2, draws)),
    ]
    if random:
        return Suite("audit-rand", tuple(attacks), "mean over draws, after the remedies of the audit")
    targeted = MultiTargeted("APGD-T", targeted_dlr_or_margin, APGD(steps=steps(50)), targets=9)
    attacks += [on(best, targeted), Square(queries=steps(1000))]
    return Suite("audit", tuple(attacks), "upper bound, after the remedies of the audit")
