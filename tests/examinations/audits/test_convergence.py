"""More steps, more restarts and other losses: they change nothing for a strong suite, and much for a weak one."""

import pytest
import torch

from support.audited import under_audit
from support.planted import Scaled, robust
from unperturbed.attacks.function import FunctionAttack
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.examinations.audits.incomplete import incomplete
from unperturbed.examinations.audits.more_restarts import more_restarts
from unperturbed.examinations.audits.more_steps import more_steps
from unperturbed.examinations.audits.silent_success import silent_success
from unperturbed.examinations.audits.two_losses import two_losses
from unperturbed.losses import margin
from unperturbed.maximise.pgd import PGD
from unperturbed.suites.pgd import PGD_SUITE
from unperturbed.types import Inputs, Labels, Model

SHORT = Suite("short", (GradientAttack("PGD-2", margin, PGD(steps=2, step_size=0.1, random_start=False)),), "a test")
LOTTERY = Suite("lottery", (GradientAttack("PGD-1", margin, PGD(steps=1, step_size=0.01)),), "a test")


@pytest.mark.long
@pytest.mark.slow
def test_a_strong_suite_gains_nothing_from_more_of_anything() -> None:
    audited = under_audit(robust())
    for check in (more_restarts, two_losses, incomplete, silent_success):
        found = check(audited)
        assert found.verdict == "pass" and found.causes == (), f"{check.__name__}: {found.measured}"


@pytest.mark.long
@pytest.mark.slow
def test_a_short_suite_gains_from_more_steps() -> None:
    found = more_steps(under_audit(robust(), 30, SHORT))
    assert found.verdict == "fail" and found.causes == ("weak suite",)
    assert len(found.broke) >= 0.1 * found.numbers[0].n and found.numbers[1].value > 0.1, found.measured


@pytest.mark.long
@pytest.mark.slow
def test_examples_that_a_check_broke_are_misclassified_inside_the_threat_set() -> None:
    audited = under_audit(robust(), 30, SHORT)
    standing = {int(number) for number in audited.standing_batch.ids}
    assert {*more_steps(audited).broke} <= standing and standing <= {*range(30)}


@pytest.mark.slow
def test_a_climb_with_tiny_steps_is_incomplete() -> None:
    tiny = Suite("tiny", (GradientAttack("PGD", margin, PGD(steps=50, step_size=0.004)),), "a test")
    found = incomplete(under_audit(robust(), 40, tiny))
    late = found.numbers[1].value
    assert found.verdict == "fail" and late == pytest.approx(0.2, abs=0.08), "about 10 of 50 equal steps"


def test_the_cross_entropy_of_saturated_logits_breaks_less_than_the_margin() -> None:
    found = two_losses(under_audit(Scaled(robust(), 1000.0)))
    assert found.verdict == "fail" and found.numbers[1].value > found.numbers[0].value


def test_an_attack_that_forgets_its_success_is_noticed() -> None:
    def forgetful(model: Model, x: Inputs, y: Labels) -> Inputs:
        z = x
        for _ in range(20):
            z = z.detach().requires_grad_()
            (slope,) = torch.autograd.grad(margin(model(z), y).sum(), z)
            z = (x + (z.detach() + 0.03 * slope.sign() - x).clamp(-0.15, 0.15)).clamp(0, 1)
        model(z)
        return x

    found = silent_success(under_audit(robust(), 20, Suite("f", (FunctionAttack("forgetful", forgetful),), "a test")))
    assert found.verdict == "fail" and found.numbers[0].value > 0.1, found.measured


@pytest.mark.slow
def test_a_suite_without_climbs_is_compared_with_that_of_pgd() -> None:
    nothing = Suite("nothing", (FunctionAttack("nothing", lambda model, x, y: x),), "a test")
    found = more_restarts(under_audit(robust(), 20, nothing))
    assert found.verdict == "fail" and f"({PGD_SUITE.attacks[-1].label})" not in found.measured
    assert PGD_SUITE.attacks[-1].label in found.measured


def test_one_start_close_to_the_example_gains_from_a_second_only_a_little() -> None:
    found = more_restarts(under_audit(robust(), 30, LOTTERY))
    assert 0 <= found.numbers[0].value < 0.5
