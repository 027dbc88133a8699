"""A check whether autograd's gradient is the slope of the function, by finite differences and sums along segments."""

from unperturbed.evaluation.gradient_check import check_gradient
from unperturbed.examinations.audited import Audited, CheckResult, share
from unperturbed.examinations.behaviour import drawn
from unperturbed.networks.modes import under_attack
from unperturbed.noise import Noise

PASSES = 60
WRONG, OFF = 0.1, 0.2
"""Shares of the examples above which the gradient is unreliable. On honest networks the slope was wrong for up to 2 of
32 examples and sums were off for none; with winner-take-all activations they were off for 8 and 16 of 32."""


def slopes(audited: Audited) -> CheckResult:
    """Does the gradient predict the change of the logits, near the inputs and along segments across the threat set?"""
    batch = audited.few
    z = audited.threat.maximise_linear(batch.x, Noise.of(audited.seed, batch.ids).fold(7).normal(batch.x.shape[1:]))
    network = audited.reachable
    with under_attack(network), drawn(audited.seed, batch.x.device):
        check = check_gradient(network, batch, z.to(batch.x), audited.threat, audited.seed, audited.behaviour.is_random)
    guilty = [layer for layer in audited.layers if layer.guilty]
    where = str(guilty[-1]) if guilty else ""
    bad = check.wrong > WRONG * check.slopes or check.off > OFF * check.segments
    measured = (
        f"the slope differs from finite differences for {check.wrong} of {check.slopes} examples, and slopes "
        f"do not add up to the change across the threat set for {check.off} of {check.segments}"
    )
    return CheckResult(
        "slopes",
        "Is the gradient the slope of the function?",
        "fail" if bad else "pass",
        measured + (f"; it goes wrong in {where}" if where and bad else ""),
        f"at most {WRONG:.0%} and {OFF:.0%}",
        ("shattered",) if bad else (),
        where if bad else "",
        (share("wrong slope", check.wrong, check.slopes), share("slopes do not add up", check.off, check.segments)),
    )
