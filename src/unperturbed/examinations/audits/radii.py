"""Whether larger perturbations break more, up to all examples."""

from dataclasses import replace

import torch

from unperturbed.attacks.gradient import GradientAttack
from unperturbed.examinations.audited import Audited, CheckResult, share
from unperturbed.findings import Number
from unperturbed.losses import margin
from unperturbed.maximise.pgd import PGD
from unperturbed.threat import Threat

PASSES = 90
FACTORS = (0.5, 1.0, 2.0, 4.0)
STEPS = 15
RISE, LEFT = 0.1, 0.05
"""Shares of the examples: by which accuracy may rise with eps; that may survive a perturbation of any size."""
HALF = 0.5
"""Radius in Linf, as a share of the width of the box, at which every image can be made grey."""


def radii(audited: Audited) -> CheckResult:
    """Does accuracy fall with eps, and reach 0 where every input is allowed? (I6; Carlini et al. 2019.)

    The last radius is the size of the whole box: there an example can be turned into one of another class. Half of
    the box in Linf is looked at too: every image can be made grey there, so that no more than one class can be right.
    Features that never change may be enough to tell the classes apart, so that any accuracy is fine with them.
    """
    batch, n, threat = audited.few, len(audited.few.y), audited.threat
    low, high = threat.limits(batch.x)
    boxed = bool((high - low).isfinite().all())
    lowest, highest = (bound.expand_as(batch.x)[:1] for bound in (low, high))
    greyed, left = boxed and threat.shares is None, 1.0 if 0.0 in (threat.shares or ()) else LEFT
    whole = float(threat.distance(lowest, threat.fixed(lowest, highest))) if boxed else 20 * threat.eps
    sizes = [*(factor * threat.eps for factor in FACTORS if factor * threat.eps < whole), whole]
    accuracies = [_accuracy(audited, replace(threat, eps=size)) for size in sizes]
    chance = max(1 / audited.classes, float(torch.bincount(batch.y).max()) / n)
    grey = _accuracy(audited, Threat("Linf", HALF * float((high - low).max()), threat.bounds)) if greyed else 0.0
    rise = max(later - earlier for earlier, later in zip(accuracies, accuracies[1:], strict=False))
    bad = rise > RISE or accuracies[-1] > left or grey > chance
    curve = ", ".join(f"{accuracy:.0%} at {size:.3g}" for size, accuracy in zip(sizes, accuracies, strict=True))
    half = f"; {grey:.0%} at Linf half of the box, where every input can be made grey" if greyed else ""
    causes = ("weak suite",) if bad and not audited.behaviour.is_random else ()
    return CheckResult(
        "radii",
        "Do larger perturbations break more, and the largest everything?",
        "fail" if bad else "pass",
        f"accuracy {curve} on {n} examples{half}",
        f"falling, to at most {left:.0%}"
        + (f", and at most {chance:.0%} (chance) at half of the box" if greyed else ""),
        causes,
        numbers=(
            Number("largest rise of accuracy with eps", max(rise, 0.0), n, unit="%"),
            share("correct at the largest eps", round(accuracies[-1] * n), n),
            *([share("correct at Linf half of the box", round(grey * n), n)] if greyed else []),
        ),
    )


def _accuracy(audited: Audited, threat: Threat) -> float:
    """Return the share of the examples that a short attack inside a threat set leaves correct."""
    attack = GradientAttack("PGD", margin, PGD(steps=STEPS))
    elsewhere = replace(audited, threat=threat)
    return 1 - float(
        audited.wrong(audited.few, elsewhere.climbed(attack, audited.few, 19, audited.reachable)).double().mean()
    )
