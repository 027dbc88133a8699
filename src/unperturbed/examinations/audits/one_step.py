"""A check whether one long step breaks fewer examples than shorter steps in the same direction, or several steps."""

import torch

from unperturbed.attacks.gradient import GradientAttack
from unperturbed.examinations.audited import Audited, CheckResult, share
from unperturbed.examinations.behaviour import drawn
from unperturbed.losses import cross_entropy, margin
from unperturbed.maximise.pgd import PGD
from unperturbed.networks.modes import under_attack
from unperturbed.noise import Noise

PASSES = 40
SHORTER = 8
"""The tried lengths of the step."""
DISTORTED, GAP = 0.1, 0.25
"""Shares of the examples: broken by a shorter step only; broken by 20 steps and not by one."""
PART = 0.6
"""The number of breaks by one step over that by 20 steps, which is near 1 for undefended networks."""


def one_step(audited: Audited) -> CheckResult:
    """Do 20 steps break many survivors of one full step? (Wong et al. 2020, https://arxiv.org/abs/2001.03994.)

    Shorter steps in the same direction are tried as well: after catastrophic overfitting they may break survivors of
    the full step (Kim et al. 2021, https://arxiv.org/abs/2010.01799).
    """
    batch, threat, network = audited.few, audited.threat, audited.reachable
    n = len(batch.y)
    with under_attack(network), torch.enable_grad(), drawn(audited.seed, batch.x.device):
        leaf = batch.x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(cross_entropy(network(leaf), batch.y).sum(), leaf)
        attack = GradientAttack("PGD-20", margin, PGD(steps=20))
        noise = Noise.of(audited.seed, batch.ids).fold(13)
        several = audited.wrong(batch, attack(network, batch, threat, noise, audited.batch_size).z)
    end = threat.maximise_linear(batch.x, slope.nan_to_num())
    ends = [audited.wrong(batch, torch.lerp(batch.x, end, k / SHORTER)) for k in range(1, SHORTER + 1)]
    full, shorter = ends[-1], torch.stack(ends[:-1]).any(0)
    distorted, gap = int((shorter & ~full).sum()), int(several.sum()) - int(full.sum())
    overfitted = gap > GAP * n and (distorted > DISTORTED * n or int(full.sum()) < PART * int(several.sum()))
    return CheckResult(
        "one_step",
        "Is the network as weak under one step as under many?",
        "fail" if overfitted else "pass",
        f"one full step breaks {int(full.sum())} of {n}, 20 steps break {int(several.sum())}; {distorted} are broken "
        "by a shorter step in the same direction only",
        f"at most {GAP:.0%} more broken by many steps, or most of them by one step too",
        ("catastrophic overfitting",) if overfitted else (),
        numbers=(
            share("broken by one step", int(full.sum()), n),
            share("broken by 20 steps", int(several.sum()), n),
            share("broken by a shorter step only", distorted, n),
        ),
    )
