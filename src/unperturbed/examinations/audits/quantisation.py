"""Whether small changes of the input have no effect: rounding in front of the network."""

import torch

from unperturbed.examinations.audited import Audited, CheckResult, share
from unperturbed.findings import Number
from unperturbed.noise import Noise

PASSES = 8
SMALL, LARGE = 2e-3, 0.5
"""Steps compared, in units of the largest change of a coordinate that the threat allows."""
RATIO = 0.1
"""An honest network changes at the same rate with both, within a factor of a few."""


def quantisation(audited: Audited) -> CheckResult:
    """Do tiny changes of the input leave the logits exactly as they are, while larger ones move them?"""
    batch, unit = audited.few, audited.threat.even_share(audited.few.x)
    sign = Noise.of(audited.seed, batch.ids).fold(11).normal(batch.x.shape[1:], batch.x.dtype).sign()
    before = audited.answers(batch.x).double()

    def rate(step: float) -> torch.Tensor:
        moved = audited.threat.boxed(batch.x + step * unit * sign)
        return (audited.answers(moved).double() - before).abs().amax(1) / step

    small, large = rate(SMALL), rate(LARGE)
    moving = large > 0
    n = int(moving.sum())
    ratios = (small / large)[moving]
    median = float(ratios.median()) if n else 1.0
    still = int((small[moving] == 0).sum())
    found = n > 0 and median < RATIO and not audited.behaviour.is_random
    return CheckResult(
        "quantisation",
        "Do small changes of the input have an effect?",
        "fail" if found else "pass",
        f"changes of {SMALL * unit:.2g} in every input leave the logits exactly as they are for {still} of {n} "
        f"examples; median rate {median:.2g} of the rate at {LARGE * unit:.2g}",
        f"a median rate above {RATIO:g}",
        ("quantised input",) if found else (),
        numbers=(share("logits do not move", still, n), Number("median rate of small changes", median, n)),
    )
