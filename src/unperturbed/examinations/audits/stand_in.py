"""Whether what breaks the network with a visible gradient breaks the real one too (indicator I5 of attack failure)."""

from unperturbed.attacks.gradient import GradientAttack
from unperturbed.examinations.audited import Audited, CheckResult, share
from unperturbed.examinations.remedies.candidates import AS_IT_IS
from unperturbed.losses import margin
from unperturbed.maximise.pgd import PGD

PASSES = 120
ALLOWED = 0.25
"""Share of the points that break the stand-in and not the network."""


def stand_in(audited: Audited) -> CheckResult:
    """Do points that break the network through which the audit attacks break the network itself?

    (I5 of Pintor et al. 2022, https://arxiv.org/abs/2106.09947: the label on the target differs from that on the
    surrogate. Attacks whose successes do not carry over say little about the target.)
    """
    question = "Do attacks past the obstacle break the network itself?"
    if audited.behaviour.is_random:
        text = "the network draws random numbers: one forward is no answer"
        return CheckResult("stand_in", question, "not run", text, "", reason="not applicable")
    best = audited.candidates[0] if audited.candidates else None
    if best is None or best.name == AS_IT_IS:
        text = "the strongest short attack follows the gradient of the network itself"
        return CheckResult("stand_in", question, "pass", text, f"at most {ALLOWED:.0%} are lost")
    few = audited.few
    attack = GradientAttack("PGD", margin, PGD(steps=40))
    z = audited.climbed(attack, few, 171, best.network)
    label = audited.answers_of(best.network, z).argmax(1)
    there, here = label != few.y, audited.wrong(few, z)
    broken, lost = int(there.sum()), int((there & ~here).sum())
    bad = lost > ALLOWED * max(broken, 1)
    return CheckResult(
        "stand_in",
        question,
        "fail" if bad else "pass",
        f"attacked with {best.name}: of {broken} of {len(few.y)} examples broken there, {lost} are not on the network "
        "itself (indicator I5)",
        f"at most {ALLOWED:.0%} are lost",
        ("weak suite",) if bad else (),
        numbers=(share("broken on the stand-in only", lost, broken),),
        broke=audited.broke(few, z),
    )
