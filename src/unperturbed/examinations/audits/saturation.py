"""A check whether the scale of the logits makes the cross-entropy useless for attacks."""

from unperturbed.evaluation.outputs import LARGE, saturated
from unperturbed.examinations.audited import Audited, CheckResult, share
from unperturbed.examinations.remedies.candidates import looks_like_probabilities
from unperturbed.findings import Number
from unperturbed.losses import cross_entropy, margin

PASSES = 4


def saturation(audited: Audited) -> CheckResult:
    """Is the cross-entropy's gradient 0, or are all probabilities nearly equal, although the logits are not?"""
    logits, y = audited.logits, audited.batch.y
    correct = logits.argmax(1) == y
    leads = -margin(logits, y)[correct].double()
    n = int(correct.sum())
    median = float(leads.median()) if n else 0.0
    p = logits.double().softmax(1).amax(1)
    uniform = 1 / audited.classes
    underflow = int((logits.softmax(1).gather(1, y[:, None])[correct] == 1).sum()) if n else 0
    vanished = int((cross_entropy(logits[correct], y[correct]) == 0).sum()) if n else 0
    hidden = not looks_like_probabilities(logits) and saturated(logits, y)
    measured = (
        f"median lead of the label {median:.3g} logits; the loss is exactly 0 for {vanished} of {n} correct examples; "
        f"largest confidence {float(p.max()):.3g}"
    )
    return CheckResult(
        "saturation",
        "Does the loss depend on the logits at their scale?",
        "fail" if hidden else "pass",
        measured,
        f"a median lead below {LARGE:g} logits and confidences well above {uniform:.2g}",
        ("saturation",) if hidden else (),
        numbers=(
            Number("median lead of the label", median, n, unit="logits"),
            share("loss exactly 0", vanished, n),
            share("confidence exactly 1", underflow, n),
        ),
    )
