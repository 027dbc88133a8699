"""Whether the scale of the logits keeps the cross-entropy from guiding attacks."""

from unperturbed.evaluation.outputs import LARGE, saturated
from unperturbed.examinations.audited import Audited, CheckResult, share
from unperturbed.examinations.remedies.candidates import looks_like_probabilities
from unperturbed.findings import Number
from unperturbed.losses import cross_entropy, margin

PASSES = 4


def saturation(audited: Audited) -> CheckResult:
    """Is the cross-entropy's gradient 0, or its probabilities all alike, although the logits tell classes apart?"""
    logits, y = audited.logits, audited.batch.y
    correct = logits.argmax(1) == y
    leads = -margin(logits, y)[correct].double()
    n = int(correct.sum())
    median = float(leads.median()) if n else 0.0
    p = logits.double().softmax(1).amax(1)
    uniform = 1 / audited.classes
    underflow = int((logits.softmax(1).gather(1, y[:, None])[correct] == 1).sum()) if n else 0
    gone = int((cross_entropy(logits[correct], y[correct]) == 0).sum()) if n else 0
    found = not looks_like_probabilities(logits) and saturated(logits, y)
    measured = (
        f"median lead of the label {median:.3g} logits; the loss is exactly 0 for {gone} of {n} correct examples; "
        f"largest confidence {float(p.max()):.3g}"
    )
    return CheckResult(
        "saturation",
        "Is the scale of the logits one that the loss can follow?",
        "fail" if found else "pass",
        measured,
        f"a median lead below {LARGE:g} logits and confidences well above {uniform:.2g}",
        ("saturation",) if found else (),
        numbers=(
            Number("median lead of the label", median, n, unit="logits"),
            share("loss exactly 0", gone, n),
            share("confidence exactly 1", underflow, n),
        ),
    )
