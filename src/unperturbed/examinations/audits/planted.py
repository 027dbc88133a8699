"""A check whether the suite finds adversarial examples that are known to exist: the binarisation test."""

from unperturbed.examinations.audited import Audited, CheckResult, share
from unperturbed.examinations.binarisation import binarisation

PASSES = 200
PASSED = 0.9
"""Share of the planted adversarial examples that a suite must find; Zimmermann et al. ask for 95% of many hundreds."""
EXAMPLES = 12


def planted(audited: Audited) -> CheckResult:
    """Does the suite find adversarial examples planted by the audit? (Zimmermann et al. 2022.)

    A suite that fails this test supports no verdict on the network.
    """
    test = binarisation(audited.deployed, audited.few, audited.threat, audited.suite, EXAMPLES, audited.seed)
    if test.valid == 0:
        text = f"no problem could be planted ({test.reason})"
        return CheckResult("planted", "Does the suite find planted adversarial examples?", "not run", text, "")
    bad = test.solved < PASSED * test.valid
    return CheckResult(
        "planted",
        "Does the suite find planted adversarial examples?",
        "fail" if bad else "pass",
        f"the suite {audited.suite.name} solves {test.solved} of {test.valid} planted problems, random points "
        f"{test.by_chance}",
        f"at least {PASSED:.0%}",
        ("weak suite",) if bad else (),
        numbers=(
            share("planted problems solved", test.solved, test.valid),
            share("planted problems solved by chance", test.by_chance, test.valid),
        ),
    )
