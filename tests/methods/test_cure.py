"""CURE against closed forms on quadratic losses, and its formula, typed again here with plain autograd."""

from math import sqrt

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from support.examples import NORMS, losses_held, make_batch, network, noise_for
from unperturbed.curvature.products import root
from unperturbed.errors import InputError
from unperturbed.methods.cure import CURE
from unperturbed.networks.modes import under_attack
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inner, Inputs, Logits, Norm, Terms

BATCH = make_batch(6, torch.float64)
THREAT = Threat("Linf", 0.2)
FLAT = Batch(BATCH.x, torch.zeros_like(BATCH.y), BATCH.ids)


class Quadratic(nn.Module):
    """Logits whose cross-entropy with class 0 is 20 + <b, x> + <x, H x> / 2, H = 0 where there is none."""

    def __init__(self, *, curved: bool) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        half = torch.randn((32, 32), generator=draw, dtype=torch.float64) / 6
        self.b = nn.Parameter(torch.randn(32, generator=draw, dtype=torch.float64))
        self.h = nn.Parameter((half + half.T) * curved)

    def forward(self, x: Inputs) -> Logits:
        flat = x.flatten(1)
        loss = 20 + flat @ self.b + ((flat @ self.h) * flat).sum(1) / 2
        return torch.stack([torch.zeros_like(loss), loss.expm1().log()], dim=1)


def inner_of(method: CURE, model: nn.Module, threat: Threat, batch: Batch = BATCH) -> Inner:
    with under_attack(model):
        return method.perturb(model, batch, threat, noise_for(batch))


def terms_of(method: CURE, model: nn.Module, threat: Threat, batch: Batch = BATCH) -> Terms:
    return method.loss(model, batch, inner_of(method, model, threat, batch), threat, noise_for(batch))


def gradient(model: nn.Module, x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(losses_held(model, leaf, BATCH).sum(), leaf, create_graph=True)
    return g.flatten(1)


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize("along", ["sign", "gradient"])
@pytest.mark.parametrize("net", ["plain", "norm"])
def test_it_is_its_formula_and_learns_through_both_gradients(squared: bool, along: str, net: str) -> None:
    model, h = network(net, torch.float64), 0.6
    method = CURE(weight=1.5, step=h, direction=along, squared=squared)  # type: ignore[arg-type]
    with under_attack(model):
        x = BATCH.x.clone().requires_grad_()
        (g,) = torch.autograd.grad(functional.cross_entropy(model(x), BATCH.y, reduction="sum"), x)
    u = g.sign() if along == "sign" else g
    u = u / u.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    terms = terms_of(method, model, THREAT)
    turn = (gradient(model, BATCH.x + h * u) - gradient(model, BATCH.x)).norm(dim=1)
    expected = losses_held(model, BATCH.x, BATCH).mean() + 1.5 * (turn**2 if squared else turn).mean()
    found, weights = terms["clean"] + terms["curvature"], list(model.parameters())
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    for mine, theirs in zip(
        torch.autograd.grad(found, weights), torch.autograd.grad(expected, weights), strict=True
    ):  # fmt: skip
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("squared", [False, True])
def test_on_a_quadratic_loss_it_is_the_length_of_the_hessian_product(squared: bool) -> None:
    model, h = Quadratic(curved=True), 0.7
    terms = terms_of(CURE(weight=2.0, step=h, squared=squared), model, THREAT, FLAT)
    g = model.b + FLAT.x.flatten(1) @ model.h
    turn = (h / sqrt(32) * g.sign() @ model.h).norm(dim=1)
    torch.testing.assert_close(terms["curvature"], 2 * (turn**2 if squared else turn).mean(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("squared", [False, True])
def test_on_an_affine_loss_it_is_nothing(squared: bool) -> None:
    model = Quadratic(curved=False)
    terms = terms_of(CURE(weight=2.0, squared=squared), model, THREAT, FLAT)
    assert float(terms["curvature"].detach()) < 1e-7
    assert all(g.isfinite().all() for g in torch.autograd.grad(terms["curvature"], list(model.parameters())))


@pytest.mark.parametrize("norm", NORMS)
def test_the_step_is_the_longest_displacement_in_the_ball(norm: Norm) -> None:
    """eps * sqrt(d) in Linf, where it is FGSM's, and eps in L2 and L1; or whatever is asked for."""
    model, far = network("plain", torch.float64), {"Linf": 0.3 * sqrt(32), "L2": 0.3, "L1": 0.3}[norm]
    assert Threat(norm, 0.3, (0.4, 0.6)).longest(BATCH.x) == pytest.approx(far)
    for method, length in ((CURE(), far), (CURE(direction="gradient"), far), (CURE(step=1.5), 1.5)):
        found = inner_of(method, model, Threat(norm, 0.3)).reuse["displacement"]
        torch.testing.assert_close(found.flatten(1).norm(dim=1), torch.full((6,), length, dtype=torch.float64))
    if norm == "Linf":
        moved = inner_of(CURE(), model, Threat(norm, 0.3)).reuse["displacement"].abs()
        torch.testing.assert_close(moved, torch.full_like(moved, 0.3))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", ["no eps", "no gradient"])
def test_zero_gradients_and_zero_eps_give_zero(norm: Norm, kind: str) -> None:
    model = network("plain", torch.float64)
    if kind == "no gradient":
        with torch.no_grad():
            model.get_parameter("3.weight").zero_()
    threat = Threat(norm, 0.0 if kind == "no eps" else 0.3)
    assert not inner_of(CURE(), model, threat).reuse["displacement"].any()
    terms = terms_of(CURE(), model, threat)
    assert float(terms["curvature"].detach()) == 0
    gradients = torch.autograd.grad(terms["curvature"], list(model.parameters()), allow_unused=True)
    assert all(g is None or not g.any() for g in gradients)


def test_the_root_of_zero_has_no_slope() -> None:
    squares = torch.tensor([0.0, 4.0]).requires_grad_()
    (slope,) = torch.autograd.grad(root(squares).sum(), squares)
    assert root(squares).tolist() == [0, 2] and slope.tolist() == [0, 0.25]


def test_batch_norms_averages_move_once() -> None:
    model = network("norm", torch.float64)
    terms_of(CURE(), model, THREAT)
    assert int(model.get_buffer("1.num_batches_tracked")) == 1
    seen = model[0](BATCH.x).mean((0, 2, 3))  # type: ignore[index]
    torch.testing.assert_close(model.get_buffer("1.running_mean"), 0.1 * seen)


def test_it_says_what_it_measures_and_where_it_would_go_wrong() -> None:
    model = network("plain", torch.float64)
    with under_attack(model):
        found = CURE().examine(model, BATCH, THREAT, noise_for(BATCH))["turn"]
    ahead = BATCH.x + inner_of(CURE(), model, THREAT).reuse["displacement"]
    torch.testing.assert_close(found, (gradient(model, ahead) - gradient(model, BATCH.x)).detach().norm(dim=1))
    assert CURE().check(model, BATCH, THREAT, noise_for(BATCH)) == []
    kinked = nn.Sequential(nn.Flatten(), nn.Linear(32, 4), nn.ReLU(), nn.Linear(4, 3)).double()
    (warning,) = CURE().check(kinked, BATCH, THREAT, noise_for(BATCH))
    assert "piecewise linear" in warning
    assert len(CURE().check(network("dropout"), BATCH, THREAT, noise_for(BATCH))) == 1


@pytest.mark.parametrize("wrong", [{"weight": -1.0}, {"step": 0.0}])
def test_bad_values_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        CURE(**wrong)  # type: ignore[arg-type]


def test_an_unknown_direction_is_refused() -> None:
    method = CURE()
    object.__setattr__(
        method, "direction", "random"
    )  # where types are checked, as in tests, it would not come this far
    with pytest.raises(InputError, match="direction"):
        method.__post_init__()
