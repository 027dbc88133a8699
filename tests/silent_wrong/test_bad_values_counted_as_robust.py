"""Bad values in verdicts: NaN (S1), and inputs outside the bounds (S2)."""

from pathlib import Path

import pytest
import torch
from torch import nn

from support.toys import QUICK, Function, blobs, linear, mlp, uniform
from unperturbed.attacks.fab import FAB
from unperturbed.attacks.gradient import Suite
from unperturbed.attacks.square import Square
from unperturbed.errors import InputError
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.methods.erm import ERM
from unperturbed.statistics.intervals import wilson
from unperturbed.threat import Threat
from unperturbed.training.loop import train
from unperturbed.training.recipe import Recipe
from unperturbed.types import Inputs, Logits, Norm

THREAT = Threat("Linf", 0.2)


def test_nan_logits_never_count_as_robust_s1() -> None:
    """The argmax of NaN is class 0, so that such an example looks correct if its label is 0."""
    x, y = uniform(64, 4), torch.zeros(64, dtype=torch.int64)
    bad = x[:, 1] > 0.5

    def logits(x: Inputs) -> Logits:
        sure = torch.tensor([5.0, 0.0, 0.0]) + 0 * x.sum(1, keepdim=True)
        return torch.where(x[:, 1:2] > 0.5, torch.nan, sure)

    outcome = evaluate(Function(logits), (x, y), Threat("Linf", 0.0), QUICK)
    assert [v == "unknown" for v in outcome.examples["verdict"]] == bad.tolist()
    assert outcome.counts == {"misclassified": 0, "broken": 0, "survived": 64 - int(bad.sum()), "unknown": bad.sum()}
    assert outcome.robust_accuracy == wilson(64 - int(bad.sum()), 64, at_most=64)
    assert outcome.clean_accuracy == wilson(64 - int(bad.sum()), 64, at_most=64)
    assert any("could not be decided" in text and str(int(bad.sum())) in text for text in outcome.warnings)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_near_an_example_makes_it_unknown_s1(bad: float) -> None:
    """Every climb leads to z_0 > 0.6, where nothing finite comes; short of it, nothing breaks."""
    x, y = uniform(32, 3, low=0.45, high=0.55), torch.zeros(32, dtype=torch.int64)

    def logits(x: Inputs) -> Logits:
        sound = torch.stack([torch.full_like(x[:, 0], 2.0), x[:, 0] + 1], dim=1)
        return torch.where(x[:, :1] > 0.6, bad, sound)

    outcome = evaluate(Function(logits), (x, y), THREAT, "pgd")
    assert outcome.counts == {"misclassified": 0, "broken": 0, "survived": 0, "unknown": 32}
    assert outcome.clean_accuracy.value == 1 and outcome.robust_accuracy == wilson(0, 32, at_most=32)
    assert outcome.adversarial.isfinite().all()


@pytest.mark.long
@pytest.mark.slow
def test_a_gradient_that_is_not_a_number_makes_an_example_unknown_s1() -> None:
    x, y = uniform(32, 3), torch.zeros(32, dtype=torch.int64)

    def logits(x: Inputs) -> Logits:
        root = (0 * x.sum(1)).sqrt()  # 0, with the gradient 0 · infinity
        return torch.stack([root + 1, root], dim=1)

    outcome = evaluate(Function(logits), (x, y), THREAT, "pgd")
    assert outcome.counts["unknown"] == 32 and outcome.robust_accuracy.value == 0


def test_what_is_not_finite_in_the_fresh_forward_alone_is_unknown_s1() -> None:
    """The search saw other values there, as it may in another precision or memory layout, and none that breaks."""
    x, y = uniform(32, 3, low=0.4, high=0.6), torch.zeros(32, dtype=torch.int64)

    def logits(z: Inputs) -> Logits:
        lead = 2 - z[:, :1]
        at_x = (z.detach()[:, None] - x).abs().amax(2).amin(1, keepdim=True) < 1e-6
        return torch.cat([torch.where(at_x | torch.tensor(z.requires_grad), lead, torch.nan), 0 * lead], dim=1)

    outcome = evaluate(Function(logits), (x, y), THREAT, QUICK)
    assert outcome.counts["unknown"] == 32 and outcome.clean_accuracy.value == 1


def test_a_break_found_before_the_trouble_stays_a_break_s1() -> None:
    x, y = uniform(32, 3, low=0.4, high=0.45), torch.zeros(32, dtype=torch.int64)

    def logits(x: Inputs) -> Logits:
        sound = torch.stack([torch.full_like(x[:, 0], 0.46), x[:, 0]], dim=1)
        return torch.where(x[:, :1] > 0.64, torch.nan, sound)

    outcome = evaluate(Function(logits), (x, y), THREAT, "pgd")
    assert outcome.counts["broken"] + outcome.counts["unknown"] == 32 and outcome.counts["broken"] > 16
    assert (outcome.adversarial[:, 0] <= 0.64).all()


def normalised() -> tuple[Inputs, torch.Tensor]:
    x, y = blobs(40)
    return (x - 0.5) / 0.2, y


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_evaluating_normalised_inputs_is_refused_s2(norm: str, tmp_path: Path) -> None:
    x, y = normalised()
    model = linear(6, 3)
    shown = rf"from {float(x.min()):.4g} to {float(x.max()):.4g}, outside the bounds 0 to 1.*Normalisation belongs in"
    with pytest.raises(InputError, match=shown):
        evaluate(model, (x, y), Threat(norm, 0.03), QUICK, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert evaluate(model, (x, y), Threat(norm, 0.03, (-4.0, 4.0)), QUICK).n == 40


def test_training_on_normalised_inputs_is_refused_s2(tmp_path: Path) -> None:
    x, y = normalised()
    recipe = Recipe(epochs=1)
    with pytest.raises(InputError, match="outside the bounds 0 to 1.*Normalisation belongs in the model"):
        train(mlp(6, 3), (x, y), Threat("Linf", 0.03), ERM(), recipe, out=tmp_path / "run")
    with pytest.raises(InputError, match="outside the bounds 0 to 1.*Normalisation belongs in the model"):
        train(mlp(6, 3), blobs(40), Threat("Linf", 0.03), ERM(), recipe, out=tmp_path / "run", extra=(x, y))
    assert not (tmp_path / "run").exists()


def test_bounds_per_feature_are_kept_to_s2() -> None:
    low, high = torch.tensor([0.0, -5.0]), torch.tensor([1.0, 5.0])
    x, y = torch.tensor([[0.5, 4.0], [0.5, -4.0]]), torch.tensor([0, 1])
    model = nn.Linear(2, 2)
    assert evaluate(model, (x, y), Threat("Linf", 0.1, (low, high)), QUICK).n == 2
    with pytest.raises(InputError, match=r"outside the bounds of their features.*1 of 2 examples; first: example 1"):
        evaluate(model, (torch.tensor([[0.5, 4.0], [1.5, 4.0]]), y), Threat("Linf", 0.1, (low, high)), "pgd")


@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.3), ("L2", 1.0), ("L1", 3.0)])
def test_bounds_per_channel_are_those_of_every_pixel_s2(norm: Norm, eps: float) -> None:
    """As tensors that broadcast: the same table as with bounds written out, and nothing outside of them."""
    low, high = torch.tensor([0.0, -1.0, 0.4])[:, None, None], torch.tensor([1.0, 1.0, 0.6])[:, None, None]
    x = (low + (high - low) * uniform(40, 48).view(40, 3, 4, 4)).clamp(low, high)
    model = nn.Sequential(nn.Flatten(), linear(48, 3))
    suite = Suite("s", (*QUICK.attacks[:1], FAB(steps=5), Square(queries=30)), "")
    data = x, model(x).argmax(1)
    one, whole = (
        evaluate(model, data, Threat(norm, eps, bounds), suite)
        for bounds in ((low, high), (low.expand(3, 4, 4), high.expand(3, 4, 4)))
    )
    assert one.examples == whole.examples and one.counts["broken"] > 3
    assert (one.adversarial >= low).all() and (one.adversarial <= high).all()
    with pytest.raises(InputError, match="outside the bounds of their features"):
        evaluate(model, data, Threat(norm, eps, (low, high - 0.2)), suite)
