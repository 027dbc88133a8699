"""A check whether the gradient at the inputs is exactly 0, or not finite."""

import torch
from torch import Tensor

from unperturbed.evaluation.gradient_check import rivals, slope_of
from unperturbed.examinations.audited import Audited, CheckResult, share
from unperturbed.examinations.behaviour import drawn
from unperturbed.networks.modes import under_attack
from unperturbed.types import Batch, Inputs

PASSES = 4
SHARE = 0.05


def zero_gradient(audited: Audited) -> CheckResult:
    """Is the gradient of the margin 0 or not finite at the inputs? (I1 of Pintor et al. 2022.)"""
    batch, n = audited.few, len(audited.few.y)
    slopes = slopes_at(audited, batch, batch.x)
    zero = int((slopes == 0).all(1).sum())
    infinite = int((~slopes.isfinite()).any(1).sum())
    lost = int((~slopes.isfinite()).all(1).sum())
    layers = [check for check in audited.layers if check.guilty]
    spoiled = next((str(check) for check in layers if not check.finite), "")
    dead = next((str(check) for check in layers if check.dead), "")
    causes = (("non-finite",) if infinite > SHARE * n else ()) + (("zero gradient",) if zero > SHARE * n else ())
    where = spoiled if infinite > SHARE * n else dead if causes else ""
    measured = (
        f"the gradient is exactly 0 for {zero} of {n} examples, not finite for {infinite} (of these, {lost} wholly)"
    )
    return CheckResult(
        "zero_gradient",
        "Does the gradient give attacks a direction?",
        "fail" if causes else "pass",
        measured + (f"; it ends in {where}" if where else ""),
        f"a gradient that is finite and not 0 for all but {SHARE:.0%}",
        causes,
        where,
        (share("gradient exactly 0", zero, n), share("gradient not finite", infinite, n)),
    )


def slopes_at(audited: Audited, batch: Batch, z: Inputs) -> Tensor:
    """Return autograd's gradients of the margin at z, flat: (n, d); 0 if none reaches the input."""
    network = audited.reachable
    with under_attack(network), drawn(audited.seed, z.device):
        rows = []
        for part in torch.split(torch.arange(len(z), device=z.device), audited.batch_size):
            with torch.no_grad():
                rival = rivals(network(z[part]), batch.y[part])
            rows.append(slope_of(network, z[part], batch.y[part], rival).flatten(1))
    return torch.cat(rows)
