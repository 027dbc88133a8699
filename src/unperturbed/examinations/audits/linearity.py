"""A check of local linearity: the distance of the loss from linear, and the gain of stronger attacks."""

from unperturbed.attacks.gradient import GradientAttack
from unperturbed.attacks.multi_targeted import MultiTargeted
from unperturbed.curvature.linearity import linearity_gap
from unperturbed.examinations.audited import Audited, CheckResult, share
from unperturbed.examinations.behaviour import drawn
from unperturbed.findings import Number
from unperturbed.losses import cross_entropy
from unperturbed.maximise.pgd import PGD
from unperturbed.networks.modes import under_attack
from unperturbed.noise import Noise

PASSES = 500
SEARCH, WEAK, STRONG = 20, 10, 50
DROP = 0.2
"""Fall of the accuracy from the weak to the strongest attack, above which the gradient is misleading."""


def linearity(audited: Audited) -> CheckResult:
    """What is gamma(eps, x) = max |l(z) - l(x) - <z - x, grad l(x)>| over the threat set; how far does accuracy fall?

    From a weak attack (PGD, 10 steps, the cross-entropy) to a strong one (50 steps towards every other class). Qin et
    al. 2019, https://arxiv.org/abs/1907.02610, eq. 5 and section 5: networks with obfuscated gradients have a large
    gamma, and their accuracy falls far.
    """
    batch, n, network = audited.few, len(audited.few.y), audited.reachable
    noise = Noise.of(audited.seed, batch.ids).fold(181)
    with under_attack(network), drawn(audited.seed, batch.x.device):
        result = linearity_gap(network, batch, audited.threat, noise, PGD(steps=SEARCH))
    gaps = result.gap.double()
    gap = float(gaps[gaps.isfinite()].median()) if bool(gaps.isfinite().any()) else 0.0
    rise = float((result.slope.abs() / (result.slope.abs() + result.gap)).nan_to_num(nan=0.0).double().median())
    weak = audited.climbed(GradientAttack("PGD-CE", cross_entropy, PGD(steps=WEAK)), batch, 182)
    strong = audited.climbed(MultiTargeted(ascent=PGD(steps=STRONG), targets=9), batch, 183)
    by_weak, by_strong = audited.wrong(batch, weak), audited.wrong(batch, strong)
    drop = int((by_strong & ~by_weak).sum())
    bad = drop > DROP * n
    return CheckResult(
        "linearity",
        "Does a weak attack find nearly all that a strong one finds?",
        "fail" if bad else "pass",
        f"{WEAK} steps break {int(by_weak.sum())} of {n}, {STRONG} steps towards each class {drop} more; the loss "
        f"differs from its linear model by up to {gap:.2g} nats (median gamma), of which the model explains {rise:.0%}",
        f"at most {DROP:.0%} more",
        ("weak suite",) if bad else (),
        numbers=(
            Number("median gamma", gap, n, unit="nats"),
            Number("share of the change that the linear model explains", rise, n, unit="%"),
            share("broken by the strong attack only", drop, n),
        ),
        broke=tuple(sorted({*audited.broke(batch, weak), *audited.broke(batch, strong)})),
    )
