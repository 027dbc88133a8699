"""Whether the loss changes under tiny random changes of the input (indicator I2 of attack failure)."""

import torch

from unperturbed.examinations.audited import Audited, CheckResult
from unperturbed.findings import Number
from unperturbed.losses import dlr_or_margin
from unperturbed.noise import Noise

PASSES = 100
DRAWS = 100
WIDTH = 8 / 255
"""Width of the cube of the changes, as a share of the width of the box; of the largest change where there is none."""
HONEST = 0.023
"""The largest value of eight honest networks, defended and not, on digits and MNIST; the smallest is 0.003."""
UNSTABLE = 0.3


def unstable(audited: Audited) -> CheckResult:
    """Does a scale-free loss L change under tiny noise: the mean of min(|L(x + d) - L(x)| / |L(x)|, 1) over draws?

    (I2 of Pintor et al. 2022, https://arxiv.org/abs/2106.09947, with the difference-of-logits ratio in place of the
    cross-entropy: the latter is about 0 for a confident network, and the ratio explodes.)
    """
    batch, threat, n = audited.few, audited.threat, len(audited.few.y)
    low, high = threat.limits(batch.x)
    boxed = bool((high - low).isfinite().all())
    width = WIDTH * (high - low) if boxed else torch.as_tensor(2 * WIDTH * threat.even_share(batch.x))
    before = dlr_or_margin(audited.answers(batch.x), batch.y).double()
    unit = torch.where(before == 0, torch.ones_like(before), before.abs())
    total, noise = torch.zeros_like(before), Noise.of(audited.seed, batch.ids).fold(141)
    for draw in range(DRAWS):
        shift = (noise.fold(draw).uniform(batch.x.shape[1:], batch.x.dtype) - 0.5) * width
        after = dlr_or_margin(audited.answers(threat.boxed(batch.x + shift)), batch.y).double()
        total += ((after - before).abs() / unit).nan_to_num(nan=1.0).clamp(max=1)
    value = float((total / DRAWS).mean())
    bad = value > UNSTABLE
    return CheckResult(
        "unstable",
        "Does the answer stay the same under tiny noise?",
        "fail" if bad else "pass",
        f"tiny noise changes the loss by {value:.1%} on average (indicator I2; at most {HONEST:.1%} for eight "
        "honest networks)",
        f"at most {UNSTABLE:.0%}",
        ("shattered",) if bad and not audited.behaviour.is_random else (),
        numbers=(Number("relative change of the loss under tiny noise", value, n, unit="%"),),
    )
