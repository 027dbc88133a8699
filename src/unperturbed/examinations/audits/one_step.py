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
GAP, FALSE = 0.2, 1 / 3
"""Shares from which one step misleads: of the examples, those that fall to 20 steps and not to one; and of those that
stand one step. At the radius that they were trained for, honest networks reach 0.05 and 0.06, undefended ones 0.06 and
0.21; those that were trained by single steps and collapsed, 0.25 and 0.47 or more."""


def one_step(audited: Audited) -> CheckResult:
    """Do 20 steps break many survivors of one full step? (Wong et al. 2020, https://arxiv.org/abs/2001.03994.)

    That is catastrophic overfitting by its definition there: accuracy under one step stays high, and falls under many.
    The finding also counts survivors that shorter steps in the same direction break (Kim et al. 2021,
    https://arxiv.org/abs/2010.01799).
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
    distorted, gap = int((shorter & ~full).sum()), int((several & ~full).sum())
    standing = n - int(full.sum())
    overfitted = gap > GAP * n and gap > FALSE * standing
    return CheckResult(
        "one_step",
        "Is the network as weak under one step as under many?",
        "fail" if overfitted else "pass",
        f"one full step leaves {standing} of {n}, of which 20 steps break {gap}; {distorted} of them fall to a shorter "
        "step in the same direction",
        f"20 steps break at most {GAP:.0%} of all more, or at most a third of those that stand one step",
        ("catastrophic overfitting",) if overfitted else (),
        numbers=(
            share("broken by one step", int(full.sum()), n),
            share("broken by 20 steps", int(several.sum()), n),
            share("broken by a shorter step only", distorted, n),
        ),
    )
