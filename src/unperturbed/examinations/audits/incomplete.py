"""Whether attacks stop while their loss still rises (indicator I4 of attack failure)."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from unperturbed.examinations.audited import Audited, CheckResult, share
from unperturbed.examinations.audits.more_restarts import climbing
from unperturbed.examinations.behaviour import drawn
from unperturbed.findings import Number
from unperturbed.losses import margin
from unperturbed.networks.modes import under_attack
from unperturbed.noise import Noise
from unperturbed.types import Batch, Inputs, Model, PerExample, Rows

PASSES = 100
LAST, SHARE = 10, 4
"""Iterates at the end of the climb that are looked at: 10, but at most a quarter of the climb."""
RISING = 0.05
"""Rise over them, as a share of the rise over the whole climb, from which a climb is incomplete (Pintor et al.)."""
ALLOWED = 0.5
"""Share of the examples whose climb may be incomplete."""


def incomplete(audited: Audited) -> CheckResult:
    """Does the best margin so far rise by more than 5% of its whole rise over the last iterates of a climb?

    (I4 of Pintor et al. 2022, https://arxiv.org/abs/2106.09947; a climb by the first attack of the suite that follows
    gradients, from examples that it does not break.)
    """
    attack = climbing(audited.suite, audited)[-1]
    batch, ascent = audited.standing_batch, attack.ascent
    score = _Recorded(audited.reachable, batch)
    with under_attack(audited.reachable), drawn(audited.seed, batch.x.device), torch.enable_grad():
        end = ascent(score, batch.x, audited.threat, Noise.of(audited.seed, batch.ids).fold(161))
    path = torch.stack([*score.path, audited.leads(batch, end)]).double().nan_to_num(nan=-1e30)
    best = path.cummax(0).values
    whole = best[-1] - best[0]
    last = max(min(LAST, ascent.steps // SHARE), 1)
    late = best[-1] - best[-1 - last]
    rising = torch.where(whole > 0, late / whole.clamp(min=1e-300), torch.zeros_like(whole))
    n, count = len(batch.y), int((rising > RISING).sum())
    median = float(rising.median()) if n else 0.0
    bad = count > ALLOWED * n
    return CheckResult(
        "incomplete",
        "Do attacks stop only when their loss has stopped rising?",
        "fail" if bad else "pass",
        f"after {ascent.steps} steps of {attack.label} the margin still rises over the last {last} for {count} of {n} "
        f"examples left standing (indicator I4; median rise {median:.1%} of the whole)",
        f"at most {ALLOWED:.0%}",
        ("weak suite",) if bad else (),
        numbers=(
            share("climbs that still rise", count, n),
            Number("median rise over the last iterates", median, n, unit="%"),
        ),
    )


@dataclass(frozen=True, eq=False)
class _Recorded:
    """The margin as a score, with its values at all the points that were asked for."""

    model: Model
    batch: Batch
    path: list[Tensor] = field(default_factory=list)

    def __call__(self, z: Inputs, rows: Rows) -> PerExample:
        value = margin(self.model(z), self.batch.y[rows])
        self.path.append(value.detach())
        return value
