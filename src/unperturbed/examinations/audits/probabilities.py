"""A check whether the network returns probabilities instead of logits."""

from unperturbed.examinations.audited import Audited, CheckResult
from unperturbed.examinations.remedies.candidates import looks_like_probabilities

PASSES = 1


def probabilities(audited: Audited) -> CheckResult:
    """Do the outputs lie between 0 and 1 and sum to 1? (AutoAttack's flag for a softmax.)"""
    logits = audited.logits
    normalised = looks_like_probabilities(logits)
    measured = f"outputs from {float(logits.min()):.3g} to {float(logits.max()):.3g}; rows sum to "
    measured += f"{float(logits.sum(1).min()):.3g} to {float(logits.sum(1).max()):.3g}"
    return CheckResult(
        "probabilities",
        "Does the network return logits, not probabilities?",
        "fail" if normalised else "pass",
        measured,
        "outputs beyond [0, 1]",
        ("probabilities in place of logits",) if normalised else (),
    )
