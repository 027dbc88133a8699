"""A check whether small changes of the input have no effect, because of rounding before the network."""

import torch
from torch import nn

from unperturbed.examinations.audited import Audited, CheckResult, share
from unperturbed.examinations.audits.zero_gradient import slopes_at
from unperturbed.examinations.remedies.layers import last_calls
from unperturbed.findings import Number
from unperturbed.noise import Noise
from unperturbed.types import Batch, Inputs

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
    stepwise = jumping > 0.5 * n and (still > 0.2 * n or flat > 0.5 * n) and not audited.behaviour.is_random
    seen = _seen(audited, batch.x, audited.threat.boxed(batch.x + SMALL * unit * sign))
    found = stepwise and seen <= 0.1
    return CheckResult(
        "quantisation",
        "Do small changes of the input have an effect?",
        "fail" if found else "pass",
        f"changes of {SMALL * unit:.2g} in every input leave the logits exactly as they are for {still} of {n} "
        f"examples, and change them in jumps or not at all for {jumping}"
        + (f"; {seen:.0%} of the inputs of the first layer change" if stepwise and seen >= 0 else ""),
        "changes in proportion to the step",
        ("quantised input",) if found else (),
        numbers=(share("logits do not move", still, n), Number("median rate of small changes", median, n)),
    )


def _seen(audited: Audited, x: Inputs, moved: Inputs) -> float:
    """Return the share of the first weighted layer's inputs that differ between x and `moved`; -1 without such a layer.

    Rounding behind that layer, or of the logits, leaves them as different as the inputs.
    """
    pair = []
    for inputs in (x, moved):
        calls = last_calls(audited.model, Batch(inputs, audited.few.y, audited.few.ids))
        weighted = [call for call in calls if isinstance(call.layer, nn.Conv2d | nn.Linear)]
        if not weighted:
            return -1.0
        pair.append(weighted[0].given)
    return float((pair[0] != pair[1]).double().mean()) if pair[0].shape == pair[1].shape else -1.0
