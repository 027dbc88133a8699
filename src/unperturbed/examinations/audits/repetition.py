"""A check whether two calls give the same logits: random numbers, and state between calls."""

from unperturbed.examinations.audited import Audited, CheckResult
from unperturbed.findings import Number

PASSES = 8


def repetition(audited: Audited) -> CheckResult:
    """Do the logits of the same inputs change with the draw, or after other calls? (AutoAttack's flag; all batches.)"""
    behaviour = audited.behaviour
    causes = (("state",) if behaviour.stateful else ()) + (("random",) if behaviour.is_random else ())
    return CheckResult(
        "repetition",
        "Does the same input get the same logits in every call?",
        "fail" if causes else "pass",
        f"logits change by {behaviour.random:.2g} of their spread "
        f"between draws, by {behaviour.state:.2g} after other calls",
        "no change",
        causes,
        numbers=(
            Number("change between draws", behaviour.random, behaviour.n, unit="spreads"),
            Number("change after other calls", behaviour.state, behaviour.n, unit="spreads"),
        ),
    )
