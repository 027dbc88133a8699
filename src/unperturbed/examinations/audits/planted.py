"""A check whether the suite finds adversarial examples that are known to exist: the binarisation test."""

from unperturbed.examinations.audited import Audited, CheckResult, share
from unperturbed.examinations.binarisation import binarisation

PASSES = 250
RUNS = 1.5
"""Runs of the suite on as many examples as most checks look at; these are fewer, but one at a time."""
PASSED = 0.9
"""Share of the planted adversarial examples that a suite must find; Zimmermann et al. ask for 95% of many hundreds."""
EXAMPLES = 12
FAILURES = 2
"""Missed examples at which the test ends: two of at most twelve are less than 90%, whatever it finds afterwards."""
QUESTION = "Does the suite find adversarial examples that the audit has planted?"


def planted(audited: Audited) -> CheckResult:
    """Does the suite find adversarial examples planted by the audit? (Zimmermann et al. 2022.)

    A suite that fails this test supports no verdict on the network.
    """
    test = binarisation(audited.deployed, audited.few, audited.threat, audited.suite, EXAMPLES, audited.seed, FAILURES)
    if test.valid == 0:
        text = f"no problem could be planted ({test.reason})"
        return CheckResult("planted", QUESTION, "not run", text, "", reason="not applicable")
    bad = test.solved < PASSED * test.valid
    return CheckResult(
        "planted",
        QUESTION,
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
