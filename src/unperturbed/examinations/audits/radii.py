"""Whether larger perturbations break more, up to all examples."""

from unperturbed.attacks.gradient import GradientAttack
from unperturbed.examinations.audited import Audited, CheckResult, share
from unperturbed.examinations.behaviour import drawn
from unperturbed.findings import Number
from unperturbed.losses import margin
from unperturbed.maximise.pgd import PGD
from unperturbed.networks.modes import under_attack
from unperturbed.noise import Noise

PASSES = 90
FACTORS = (0.5, 1.0, 2.0, 4.0)
STEPS = 15
RISE, LEFT = 0.1, 0.05
"""Shares of the examples: by which accuracy may rise with eps; that may survive a perturbation of any size."""


def radii(audited: Audited) -> CheckResult:
    """Does accuracy fall with eps, and reach 0 where every input is allowed? (I6; Carlini et al. 2019.)

    The last radius is the size of the whole box: there an example can be turned into one of another class.
    """
    batch, network, n = audited.few, audited.reachable, len(audited.few.y)
    noise, accuracies = Noise.of(audited.seed, batch.ids).fold(19), []
    low, high = audited.threat.limits(batch.x)
    boxed = bool((high - low).isfinite().all())
    corners = (bound.expand_as(batch.x)[:1] for bound in (low, high))
    whole = float(audited.threat.distance(*corners)) if boxed else 20 * audited.threat.eps
    sizes = [*(factor * audited.threat.eps for factor in FACTORS if factor * audited.threat.eps < whole), whole]
    with under_attack(network):
        for size in sizes:
            with drawn(audited.seed, batch.x.device):
                threat = audited.at(size).threat
                attack = GradientAttack("PGD", margin, PGD(steps=STEPS))
                z = attack(network, batch, threat, noise, audited.batch_size).z
            accuracies.append(1 - float(audited.wrong(batch, z).double().mean()))
    rise = max(later - earlier for earlier, later in zip(accuracies, accuracies[1:], strict=False))
    bad = rise > RISE or accuracies[-1] > LEFT
    curve = ", ".join(f"{accuracy:.0%} at {size:.3g}" for size, accuracy in zip(sizes, accuracies, strict=True))
    causes = ("weak suite",) if bad and not audited.behaviour.is_random else ()
    return CheckResult(
        "radii",
        "Do larger perturbations break more, and the largest everything?",
        "fail" if bad else "pass",
        f"accuracy {curve} on {n} examples",
        f"falling, to at most {LEFT:.0%}",
        causes,
        numbers=(
            Number("largest rise of accuracy with eps", max(rise, 0.0), n, unit="%"),
            share("correct at the largest eps", round(accuracies[-1] * n), n),
        ),
    )
