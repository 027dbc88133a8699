"""Whether climbing the margin and climbing the cross-entropy break the same examples."""

from unperturbed.attacks.gradient import GradientAttack
from unperturbed.examinations.audited import Audited, CheckResult, share
from unperturbed.losses import cross_entropy, margin
from unperturbed.maximise.pgd import PGD

PASSES = 80
STEPS = 40
ALLOWED = 0.15
"""Share of the examples that one of the two losses may break alone."""


def two_losses(audited: Audited) -> CheckResult:
    """Do 40 steps up the margin break examples that as many up the cross-entropy leave, or the reverse?

    (Carlini et al. 2019: attack several losses. A saturated softmax hides the cross-entropy's gradient: Carlini &
    Wagner 2017, https://arxiv.org/abs/1608.04644.)
    """
    batch, n = audited.few, len(audited.few.y)
    climb = PGD(steps=STEPS)
    ends = [
        audited.climbed(GradientAttack(name, loss, climb), batch, 131)
        for name, loss in (("PGD-CE", cross_entropy), ("PGD-margin", margin))
    ]
    by_entropy, by_margin = (audited.wrong(batch, z) for z in ends)
    only = [int((a & ~b).sum()) for a, b in ((by_entropy, by_margin), (by_margin, by_entropy))]
    bad = max(only) > ALLOWED * n and not audited.behaviour.is_random
    return CheckResult(
        "two_losses",
        "Do attacks on two different losses agree?",
        "fail" if bad else "pass",
        f"of {n} examples, the cross-entropy breaks {int(by_entropy.sum())} and the margin {int(by_margin.sum())}; "
        f"{only[0]} fall to the cross-entropy only and {only[1]} to the margin only",
        f"at most {ALLOWED:.0%} fall to one of them only",
        ("weak suite",) if bad else (),
        numbers=(
            share("broken by the cross-entropy only", only[0], n),
            share("broken by the margin only", only[1], n),
        ),
        broke=tuple(sorted({number for z in ends for number in audited.broke(batch, z)})),
    )
