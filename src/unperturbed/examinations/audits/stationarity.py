"""A check whether attacks end near a local maximum: the Frank-Wolfe gap, with the box."""

import torch

from unperturbed.attacks.gradient import GradientAttack
from unperturbed.examinations.audited import Audited, CheckResult
from unperturbed.examinations.audits.zero_gradient import slopes_at
from unperturbed.examinations.behaviour import drawn
from unperturbed.findings import Number
from unperturbed.losses import margin
from unperturbed.maximise.pgd import PGD
from unperturbed.networks.modes import under_attack
from unperturbed.noise import Noise

PASSES = 70
STEPS = 50
UNSETTLED = 1.0
"""Median gap above which attacks have not converged; 0 at a local maximum, 2 at the opposite corner of the ball."""


def stationarity(audited: Audited) -> CheckResult:
    """Do attacks end near a local maximum? FOSC with the box; undefined, not 0, where the gradient is 0.

    max_{u in S(x)} <u - z, g> / (eps |g|_q), g the margin's gradient at the last point z (Wang et al. 2019,
    https://arxiv.org/abs/2112.08304, with the box of the threat set).
    """
    batch, network, threat = audited.few, audited.reachable, audited.threat
    noise = Noise.of(audited.seed, batch.ids).fold(23)
    with under_attack(network), drawn(audited.seed, batch.x.device):
        attack = GradientAttack("PGD", margin, PGD(steps=STEPS), enough=torch.inf)
        z = attack(network, batch, threat, noise, audited.batch_size).z
    slope = slopes_at(audited, batch, z).view_as(z).double()
    defined = slope.flatten(1).isfinite().all(1) & (slope.flatten(1) != 0).any(1)
    n = int(defined.sum())
    gap = torch.zeros(len(z), dtype=torch.float64, device=z.device)
    if n:
        x, points, g = batch.x[defined].double(), z[defined].double(), slope[defined]
        best = threat.maximise_linear(x, g)
        gap[defined] = ((best - points) * g).flatten(1).sum(1) / (threat.eps * threat.dual_norm(g))
    median = float(gap[defined].median()) if n else 0.0
    undefined = len(z) - n
    bad = undefined > 0.5 * len(z) or (n > 0 and median > UNSETTLED)
    return CheckResult(
        "stationarity",
        "Do attacks end at a maximum of the loss?",
        "fail" if bad else "pass",
        f"median Frank-Wolfe gap {median:.2g} of 2 on {n} examples; undefined on {undefined}, where the gradient is 0",
        f"a median of at most {UNSETTLED:g}, defined on most examples",
        (("zero gradient",) if undefined > 0.5 * len(z) else ()),
        numbers=(Number("median Frank-Wolfe gap", median, n), Number("gap undefined", float(undefined), len(z))),
    )
