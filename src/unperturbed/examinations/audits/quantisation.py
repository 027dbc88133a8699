"""A check whether small changes of the input have no effect, because of rounding before the network."""

import torch

from unperturbed.examinations.audited import Audited, CheckResult, share
from unperturbed.examinations.audits.zero_gradient import slopes_at
from unperturbed.findings import Number
from unperturbed.noise import Noise

PASSES = 8
SMALL, LARGE = 5e-4, 0.5
"""The compared steps, in units of the largest change of a coordinate in the threat set."""


def quantisation(audited: Audited) -> CheckResult:
    """Do tiny changes of the input have exactly no effect on the logits, while larger ones change them?"""
    batch, unit = audited.few, audited.threat.even_share(audited.few.x)
    sign = Noise.of(audited.seed, batch.ids).fold(11).normal(batch.x.shape[1:], batch.x.dtype).sign()
    before = audited.answers(batch.x).double()

    def rate(step: float) -> torch.Tensor:
        moved = audited.threat.boxed(batch.x + step * unit * sign)
        return (audited.answers(moved).double() - before).abs().amax(1) / step

    small, large = rate(SMALL), rate(LARGE)
    ten = rate(10 * SMALL)
    jumps = (small == 0) | (small > 5 * ten)  # a jump stays the same at a tenth of the step, a slope gives a tenth
    moving = large > 0
    n = int(moving.sum())
    median = float((small / large)[moving].median()) if n else 1.0
    still, jumping = int((small[moving] == 0).sum()), int(jumps[moving].sum())
    flat = int((slopes_at(audited, batch, batch.x) == 0).all(1)[moving].sum())
    found = jumping > 0.5 * n and (still > 0.2 * n or flat > 0.5 * n) and not audited.behaviour.is_random
    return CheckResult(
        "quantisation",
        "Do small changes of the input have an effect?",
        "fail" if found else "pass",
        f"changes of {SMALL * unit:.2g} in every input leave the logits exactly as they are for {still} of {n} "
        f"examples, and change them in jumps or not at all for {jumping}",
        "changes in proportion to the step",
        ("quantised input",) if found else (),
        numbers=(share("logits do not move", still, n), Number("median rate of small changes", median, n)),
    )
