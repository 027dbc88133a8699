"""A check whether the other examples in a batch change the logits of an example."""

from unperturbed.examinations.audited import Audited, CheckResult
from unperturbed.examinations.behaviour import ALIKE
from unperturbed.findings import Number

PASSES = 8


def company(audited: Audited) -> CheckResult:
    """Do an example's logits change with the other examples, or with the size of the batch?"""
    behaviour = audited.behaviour
    return CheckResult(
        "company",
        "Do the logits of an example stay the same in every batch?",
        "fail" if behaviour.coupled else "pass",
        f"logits change by {behaviour.company:.2g} of their spread among others, by {behaviour.size:.2g} alone",
        f"at most {ALIKE:g}, which is rounding",
        ("batch dependence",) if behaviour.coupled else (),
        numbers=(
            Number("change among other examples", behaviour.company, behaviour.n, unit="spreads"),
            Number("change alone", behaviour.size, 4, unit="spreads"),
        ),
    )
