"""Whether the suite has restarts enough: as many again must break nothing more."""

from unperturbed.attacks.base import Attack
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.attacks.multi_targeted import MultiTargeted
from unperturbed.examinations.audited import Audited, CheckResult, share
from unperturbed.suites.pgd import PGD_SUITE

PASSES = 500
ALLOWED = 0.1
"""Share of the examples left standing that as many restarts again may break."""


def more_restarts(audited: Audited) -> CheckResult:
    """Do as many restarts again break examples that the suite leaves standing? (Carlini et al. 2019: 10 to 20.)

    Restarts are independent: the suite's last attack by gradient runs again with other random numbers, on what stands.
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
    """Return the attacks of a suite that climb a loss from random starts; those of the suite pgd where it has none."""
    attacks: tuple[Attack, ...] = suite.against(audited.threat.norm, audited.classes).attacks
    found = tuple(attack for attack in attacks if isinstance(attack, GradientAttack | MultiTargeted))
    return found or tuple(attack for attack in PGD_SUITE.attacks if isinstance(attack, GradientAttack))
