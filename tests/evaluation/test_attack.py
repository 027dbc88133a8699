"""`attack` returns the points that `evaluate` counts, and a user's function is an attack like any other."""

import pytest
import torch
from torch import Tensor, nn

from support.toys import blobs
from unperturbed.attacks.function import FunctionAttack
from unperturbed.attacks.gradient import Suite
from unperturbed.errors import InputError
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.evaluation.attack import attack
from unperturbed.losses import margin
from unperturbed.threat import Threat

THREAT = Threat("Linf", 0.15)
X, Y = blobs(60)


def network() -> nn.Module:
    torch.manual_seed(1)
    model = nn.Linear(6, 3)
    optimiser = torch.optim.Adam(model.parameters(), 0.05)
    for _ in range(100):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(X), Y).backward()
        optimiser.step()
    return model


def one_step(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    z = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(nn.functional.cross_entropy(model(z), y, reduction="sum"), z)
    return x + THREAT.eps * slope.sign()


@pytest.mark.slow
@pytest.mark.parametrize("suite", ["pgd", "apgd-ce", one_step])
def test_the_points_break_as_many_as_the_evaluation_counts(suite: object) -> None:
    model = network()
    z = attack(model, X, Y, THREAT, suite)  # type: ignore[arg-type]
    outcome = evaluate(model, (X, Y), THREAT, suite)  # type: ignore[arg-type]
    assert z.shape == X.shape and bool(THREAT.contains(X, z).all())
    wrong = margin(model(z), Y) > 0
    assert int(wrong.sum()) == outcome.counts["broken"] + outcome.counts["misclassified"] > 0


@pytest.mark.slow
def test_points_that_break_nothing_are_the_worst_that_were_seen() -> None:
    model = network()
    small = Threat("Linf", 0.01)
    z = attack(model, X, Y, small, "pgd")
    assert bool((margin(model(z), Y) >= margin(model(X), Y) - 1e-6).all())


def test_a_function_is_not_trusted() -> None:
    model = network()

    def outside(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return torch.full_like(x, torch.nan) if len(x) > 200 else x + 100 * torch.randn_like(x)

    suite = Suite("mine", (FunctionAttack("outside", outside),), "note")
    outcome = evaluate(model, (X, Y), THREAT, suite)
    assert outcome.unverified == 0 and outcome.attacks[0].forwards >= 0
    assert bool(THREAT.contains(X, attack(model, X, Y, THREAT, suite)).all())

    nans = evaluate(model, (X, Y), THREAT, Suite("nan", (FunctionAttack("nan", lambda m, x, y: x * torch.nan),), ""))
    assert nans.counts["broken"] == 0 and nans.counts["unknown"] == 0
    with pytest.raises(InputError, match="returned"):
        evaluate(model, (X, Y), THREAT, Suite("bad", (FunctionAttack("bad", lambda m, x, y: x[:1]),), ""))


@pytest.mark.slow
def test_a_function_that_is_strong_breaks_what_pgd_breaks() -> None:
    model = network()
    linear = evaluate(model, (X, Y), THREAT, one_step)
    assert linear.suite == "one_step" and linear.attacks[0].backwards >= linear.n * linear.clean_accuracy.value - 1
    assert linear.counts["broken"] <= evaluate(model, (X, Y), THREAT, "pgd").counts["broken"]
