"""A check whether the suite has enough restarts: doubling them must not break more examples."""

from unperturbed.attacks.base import Attack
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.attacks.multi_targeted import MultiTargeted
from unperturbed.examinations.audited import Audited, CheckResult, share
from unperturbed.suites.pgd import PGD_SUITE

PASSES = 500
ALLOWED = 0.1
"""Share of the survivors that the additional restarts may break."""


def more_restarts(audited: Audited) -> CheckResult:
    """Does doubling the restarts break survivors of the suite? (Carlini et al. 2019: 10 to 20.)

    Restarts are independent: the suite's last attack by gradient runs again on the survivors with other random numbers.
    """
    batch = audited.standing_batch
    attack = climbing(audited.suite, audited)[-1]
    n, wrong = len(batch.y), audited.wrong(batch, z := audited.climbed(attack, batch, 101))
    count = int(wrong.sum())
    bad = count > ALLOWED * n and not audited.behaviour.is_random
    return CheckResult(
        "more_restarts",
        "Would more random starts break more?",
        "fail" if bad else "pass",
        f"as many restarts again ({attack.restarts} of {attack.label}) break {count} of {n} examples that "
        f"{audited.suite.name} leaves standing",
        f"at most {ALLOWED:.0%}",
        ("weak suite",) if bad else (),
        numbers=(share("broken by as many restarts again", count, n),),
        broke=audited.broke(batch, z),
    )


def climbing(suite: Suite, audited: Audited) -> tuple[GradientAttack | MultiTargeted, ...]:
    """Return the attacks of a suite that climb a loss from random starts, or else those of the suite pgd."""
    attacks: tuple[Attack, ...] = suite.against(audited.threat.norm, audited.classes).attacks
    climbing_attacks = tuple(attack for attack in attacks if isinstance(attack, GradientAttack | MultiTargeted))
    return climbing_attacks or tuple(attack for attack in PGD_SUITE.attacks if isinstance(attack, GradientAttack))
