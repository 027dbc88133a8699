"""Whether two calls give the same answer: random numbers, and state between calls."""

from unperturbed.examinations.audited import Audited, CheckResult
from unperturbed.findings import Number

PASSES = 8


def repetition(audited: Audited) -> CheckResult:
    """Do the logits of the same inputs change with the draw, or after other calls? (AutoAttack's flag; all batches.)"""
    found = audited.behaviour
    causes = (("state",) if found.stateful else ()) + (("random",) if found.is_random else ())
    return CheckResult(
        "repetition",
        "Does the same input get the same answer each time?",
        "fail" if causes else "pass",
        f"logits change by {found.random:.2g} of their spread between draws, by {found.state:.2g} after other calls",
        "no change",
        causes,
        numbers=(
            Number("change between draws", found.random, found.n, unit="spreads"),
            Number("change after other calls", found.state, found.n, unit="spreads"),
        ),
    )
