"""Whether the other examples in a batch change the answer for one."""

from unperturbed.examinations.audited import Audited, CheckResult
from unperturbed.examinations.behaviour import ALIKE
from unperturbed.findings import Number

PASSES = 8


def company(audited: Audited) -> CheckResult:
    """Do an example's logits change with the other examples, or with the size of the batch?"""
    found = audited.behaviour
    return CheckResult(
        "company",
        "Does an example get the same answer whatever else is in its batch?",
        "fail" if found.coupled else "pass",
        f"logits change by {found.company:.2g} of their spread among others, by {found.size:.2g} alone",
        f"at most {ALIKE:g}, which is rounding",
        ("batch dependence",) if found.coupled else (),
        numbers=(
            Number("change among other examples", found.company, found.n, unit="spreads"),
            Number("change alone", found.size, 4, unit="spreads"),
        ),
    )
