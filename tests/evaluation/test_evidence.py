"""Doubts about a robust accuracy are in its line, in every kind of evaluation, and in the JSON."""

import cProfile
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from support.toys import QUICK, Function, blobs, linear, mlp
from unperturbed.attacks.fab import FAB
from unperturbed.attacks.gradient import GradientAttack, Suite
from unperturbed.attacks.square import Square
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.evaluation.curve import minimum_norm
from unperturbed.evaluation.evidence import FALLEN_BEFORE_CHECK, Evidence, doubts_of, fallen_without_gradients, total
from unperturbed.evaluation.optimising import calls_autograd
from unperturbed.evaluation.outputs import saturated
from unperturbed.evaluation.robustbench import model_info
from unperturbed.evaluation.transfer import transfer
from unperturbed.evaluation.union import union
from unperturbed.findings import Outcome
from unperturbed.losses import margin
from unperturbed.maximise.pgd import PGD
from unperturbed.threat import Threat
from unperturbed.types import Inputs, Logits

X, _ = blobs(40)
BASE = linear(6, 3)
Y = BASE(X).argmax(1)
THREAT = Threat("Linf", 0.05)
SHORT = Suite("short", (GradientAttack("PGD", margin, PGD(steps=3)), FAB(steps=3)), "a test")


class Reversed(nn.Module):
    """A linear network whose gradient points the other way."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = BASE

    def forward(self, x: Inputs) -> Logits:
        logits = self.layer(x)
        return 2 * logits.detach() - logits  # type: ignore[no-any-return]


def short(outcome: Outcome) -> str:
    return "; ".join(outcome.doubts)


def test_the_headline_of_a_wrong_gradient_is_not_to_be_believed() -> None:
    outcome, honest = (evaluate(model, (X, Y), THREAT, QUICK) for model in (Reversed(), BASE))
    assert "the gradient is wrong" in outcome.doubts and outcome.robust_accuracy.value > honest.robust_accuracy.value
    assert f"{outcome.robust_accuracy}: not to be believed (the gradient is wrong" in str(outcome)
    assert outcome.json()["doubts"] == list(outcome.doubts)
    assert any(text.startswith("The gradient is wrong: on 32 of 32") for text in outcome.warnings)
    assert honest.doubts == () and "believed" not in str(honest) and honest.json()["doubts"] == []


@pytest.mark.parametrize("factor", [1e3, 1e-4])
def test_saturated_logits_are_not_to_be_believed_whatever_their_accuracy(factor: float) -> None:
    outcome = evaluate(Function(lambda x: factor * BASE(x)), (X, Y), THREAT, QUICK)
    assert "the logits are saturated" in outcome.doubts and "not to be believed" in str(outcome)
    assert "the logits are saturated" in outcome.json()["doubts"]


def test_an_untrained_network_and_a_sure_one_are_not_saturated() -> None:
    shuffled = Y.roll(7)
    assert not saturated(1e-4 * BASE(X), torch.where(shuffled == Y, (Y + 1) % 3, shuffled)), "few are right"
    leads = torch.tensor([[40.0, 0.0, 0.0], [0.0, 50.0, 0.0]])
    assert not saturated(leads, torch.tensor([0, 1])) and saturated(2 * leads, torch.tensor([0, 1]))


@pytest.mark.long
@pytest.mark.slow
def test_union_curve_and_transfer_say_it_too() -> None:
    outcomes = [evaluate(Reversed(), (X, Y), Threat(norm, 0.05), QUICK) for norm in ("Linf", "L2")]
    assert "the gradient is wrong" in union(outcomes).json()["doubts"]
    found = minimum_norm(Reversed(), (X, Y), THREAT, SHORT, radii=[0.05])
    assert "the gradient is wrong" in found.json()["doubts"] and "not to be believed" in str(found)
    matrix = transfer({"honest": BASE, "reversed": Reversed()}, (X, Y), THREAT, QUICK)
    assert list(matrix.doubts) == ["reversed"] and "the gradient is wrong" in matrix.json()["doubts"]["reversed"]
    assert any(text.startswith("reversed: The gradient is wrong") for text in matrix.warnings)
    info = model_info(outcomes[0], dataset="blobs", architecture="linear")
    assert info["unreliable"] is True and "not to be believed" in info["footnote"]


def test_what_was_found_is_kept_with_the_evaluation(tmp_path: Path) -> None:
    first, again = (evaluate(Reversed(), (X, Y), THREAT, QUICK, out=tmp_path) for _ in range(2))
    assert first.doubts == again.doubts != () and again.warnings[:-1] == first.warnings
    assert again.warnings[-1].startswith("Loaded from")


def test_a_gradient_of_0_far_behind_the_first_examples_is_seen() -> None:
    """The first 64 examples are honest; of the others, what is rounded before the network has no gradient."""
    x, _ = blobs(90)
    x[:, 0] = torch.where(torch.arange(90) < 80, 0.2, 0.9)
    y = BASE(x).argmax(1)
    rounding = Function(lambda z: BASE(torch.where(z[:, :1] < 0.5, z, (z * 4).round() / 4)))
    outcome = evaluate(rounding, (x, y), THREAT, QUICK)
    assert "the gradient is 0" in outcome.doubts
    assert any("exactly 0 for" in text and "still standing" in text for text in outcome.warnings)


class Optimising(nn.Module):
    """Moves its input before it answers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = BASE

    def forward(self, x: Inputs) -> Logits:
        with torch.enable_grad():
            here = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.layer(here).logsumexp(1).sum(), here)
        logits: Logits = self.layer(x + 0.01 * slope.sign())
        return logits


@pytest.mark.long
@pytest.mark.slow
def test_autoattacks_flags_reach_the_headline() -> None:
    softmax = evaluate(nn.Sequential(BASE, nn.Softmax(1)), (X, Y), THREAT, QUICK)
    assert "the outputs are probabilities" in softmax.doubts
    assert "the network optimises at test time" in evaluate(Optimising(), (X, Y), THREAT, QUICK).doubts
    noisy = Function(lambda x: BASE(x + 0.01 * torch.randn_like(x)))
    assert "the network draws random numbers" in evaluate(noisy, (X, Y), THREAT, QUICK).doubts
    coupled = Function(lambda x: BASE(x) * (1 + 20 * (x.mean() - 0.3)))
    assert "logits depend on the rest of the batch" in short(evaluate(coupled, (X, Y), THREAT, QUICK))
    assert not evaluate(coupled, (X[:8], Y[:8]), THREAT, QUICK, batch_size=1).doubts, "alone, an example has an answer"


def test_a_network_is_evaluated_under_a_profiler_which_then_goes_on() -> None:
    profiler = cProfile.Profile()
    profiler.enable()
    try:
        assert not calls_autograd(BASE, X[:2]) and calls_autograd(Optimising(), X[:2])
        torch.nn.functional.softplus(X[:2])
        assert sys.getprofile() is profiler
    finally:
        profiler.disable()


def masked(x: Inputs) -> Logits:
    """A network whose gradient leads nowhere, which Square breaks."""
    logits: Logits = BASE((x * 40).round() / 40) + 1e-5 * x[:, :3]
    return logits


def test_square_breaking_what_gradients_left_is_told_in_a_suite_of_ones_own() -> None:
    attacks = (GradientAttack("PGD", margin, PGD(steps=3)), Square(queries=200))
    outcome = evaluate(Function(masked), (X, Y), Threat("Linf", 0.15), Suite("mine", attacks, "a test"))
    broken = outcome.attacks[1].broken
    assert broken > 0 and f"Square broke {broken} that gradients left" in outcome.doubts


def test_it_takes_more_than_two_in_a_thousand_and_a_gradient_attack_before() -> None:
    gradient, square, fab = GradientAttack("PGD", margin, PGD(steps=3)), Square(), FAB()
    told = [doubt.short for doubt in fallen_without_gradients((gradient, fab, square), [500, 3, 2], 1000)]
    assert told == ["FAB broke 3 that gradients left"]
    assert not fallen_without_gradients((square, gradient), [500, 3], 1000)


@pytest.mark.long
@pytest.mark.slow
def test_a_suite_with_a_gate_tolerates_a_hundredth_since_its_gate_attacks_a_sample_again() -> None:
    attacks = (GradientAttack("PGD", margin, PGD(steps=3)), Square())
    assert not fallen_without_gradients(attacks, [500, 10], 1000, FALLEN_BEFORE_CHECK)
    assert fallen_without_gradients(attacks, [500, 11], 1000, FALLEN_BEFORE_CHECK)
    outcome = evaluate(Function(masked), (X, Y), Threat("Linf", 0.06), "fast")
    search = next(attack for attack in outcome.attacks if attack.name == "Local-Search")
    assert outcome.gate is not None and search.broken > 0.01 * outcome.n and "Local-Search" in outcome.gate.reason


class Root(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sqrt()


class Spoiled(torch.autograd.Function):
    """The identity, whose gradient is NaN."""

    @staticmethod
    def forward(context: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(context: object, gradient: Tensor) -> Tensor:
        return torch.full_like(gradient, torch.nan)


def test_infinite_slopes_at_zero_pixels_leave_nothing_unknown_and_are_named() -> None:
    x = X.clone()
    x[:, :2] = 0
    model = nn.Sequential(Root(), mlp(6, 3, seed=1))
    y = model(x).argmax(1)
    outcome = evaluate(model, (x, y), THREAT, QUICK)
    safe = evaluate(nn.Sequential(Function(lambda z: (z + 1e-12).sqrt()), model[1]), (x, y), THREAT, QUICK)
    assert outcome.counts["unknown"] == 0
    assert abs(outcome.counts["survived"] - safe.counts["survived"]) <= 1, "as strong as with a finite slope"
    (text,) = [text for text in outcome.warnings if "not finite" in text]
    assert "for 40 of 40 examples" in text and "in `0` (Root)" in text and not outcome.doubts


def test_behind_a_backward_of_nothing_but_nan_nothing_survives() -> None:
    outcome = evaluate(Function(lambda x: BASE(Spoiled.apply(x))), (X, Y), THREAT, QUICK)  # type: ignore[no-untyped-call]
    assert outcome.counts["survived"] == 0 and outcome.counts["unknown"] > 20
    assert "the gradient is NaN" in outcome.doubts


def test_logits_that_are_nan_stay_unknown() -> None:
    def network(x: Inputs) -> Logits:
        return torch.where(x[:, :1] > 0.5, torch.nan, BASE(x))

    outcome = evaluate(Function(network), (X, Y), Threat("Linf", 1e-3), QUICK)
    assert outcome.counts["unknown"] >= int((X[:, 0] > 0.501).sum()) > 0


def test_evidence_of_blocks_adds_up_and_honest_evidence_says_nothing() -> None:
    one = Evidence(slopes=32, segments=32, standing=10, place="`a` (B)")
    assert total([Evidence(standing=1), one]) == Evidence(slopes=32, segments=32, standing=11, place="`a` (B)")
    assert doubts_of(one, 100, flat_told=False) == []


@pytest.mark.parametrize("wrong", [3, 4])
def test_one_example_in_ten_may_be_a_kink(wrong: int) -> None:
    assert bool(doubts_of(Evidence(slopes=32, wrong=wrong), 100, flat_told=False)) == (wrong > 3)
