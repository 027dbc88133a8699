"""A check whether attacks along the gradient break more than random noise of equal size."""

import torch
from torch import Tensor

from unperturbed.attacks.gradient import GradientAttack
from unperturbed.examinations.audited import Audited, CheckResult, share
from unperturbed.examinations.behaviour import drawn
from unperturbed.losses import margin
from unperturbed.maximise.pgd import PGD
from unperturbed.networks.modes import under_attack
from unperturbed.noise import Noise

PASSES = 50
DRAWS = 30
LEAD = 0.1
"""Share of the examples that may fall to noise only."""


def gradient_or_noise(audited: Audited) -> CheckResult:
    """Does random noise break survivors of as many steps along the gradient? (Carlini et al. 2019.)"""
    batch, network, n = audited.few, audited.reachable, len(audited.few.y)
    noise = Noise.of(audited.seed, batch.ids).fold(17)
    by_noise: Tensor = torch.zeros_like(batch.y, dtype=torch.bool)
    for number in range(DRAWS):
        corner = audited.threat.maximise_linear(batch.x, noise.fold(number).normal(batch.x.shape[1:], batch.x.dtype))
        by_noise |= audited.wrong(batch, corner)
    with under_attack(network), drawn(audited.seed, batch.x.device):
        attack = GradientAttack("PGD", margin, PGD(steps=DRAWS))
        by_gradient = audited.wrong(batch, attack(network, batch, audited.threat, noise, audited.batch_size).z)
    only_noise, broken = int((by_noise & ~by_gradient).sum()), int(by_gradient.sum())
    bad = only_noise > LEAD * n
    return CheckResult(
        "gradient_or_noise",
        "Does the gradient lead to more errors than random noise?",
        "fail" if bad else "pass",
        f"{DRAWS} steps along the gradient break {broken} of {n}, {DRAWS} random corners {int(by_noise.sum())}; "
        f"{only_noise} fall only to noise",
        f"at most {LEAD:.0%} fall to noise only",
        ("shattered",) if bad and not audited.behaviour.is_random else (),
        numbers=(
            share("broken along the gradient", broken, n),
            share("broken by noise", int(by_noise.sum()), n),
            share("broken by noise only", only_noise, n),
        ),
    )
