"""A check whether the network optimises or iterates at test time."""

from unperturbed.evaluation.optimising import calls_autograd
from unperturbed.examinations.audited import Audited, CheckResult
from unperturbed.examinations.remedies.layers import last_calls

PASSES = 6
LOOP = 3
"""Number of calls of one layer in a forward, with inputs of the shape of x, that count as a loop over the input."""


def repair(audited: Audited) -> CheckResult:
    """Does a forward call autograd, or run a layer repeatedly on the input with a wrong gradient?"""
    optimises = calls_autograd(audited.model, audited.few.x[:1])
    x = audited.few.x
    looped = [
        call for call in last_calls(audited.model, audited.few) if call.calls >= LOOP and call.given.shape == x.shape
    ]
    lies = any(check.wrong for check in audited.layers if check.call.path == "")
    loops = optimises or (bool(looped) and lies)
    measured = "the forward calls autograd" if optimises else "the forward does not call autograd"
    if looped:
        measured += f"; layer `{looped[0].path}` sees an input of the shape of x {looped[0].calls} times"
    return CheckResult(
        "repair",
        "Does the network classify the input without a repair at test time?",
        "fail" if loops else "pass",
        measured,
        "one pass without optimisation",
        ("test-time optimisation",) if loops else (),
    )
