"""SOAR against closed forms on quadratic losses, and its formula, typed again here with plain autograd."""

from dataclasses import replace
from math import log

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from support.examples import NORMS, assert_the_same_loss, losses_held, make_batch, network, noise_for, total
from unperturbed.errors import InputError
from unperturbed.maximise.pgd import PGD
from unperturbed.methods.soar import SOAR
from unperturbed.networks.modes import under_attack
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inner, Inputs, Logits, Norm

BATCH = make_batch(6, torch.float64)
THREAT = Threat("Linf", 0.2)
RADIUS: dict[Norm, float] = {"Linf": 0.1 * 32**0.5, "L2": 0.1, "L1": 0.1}
"""The largest L2 length in the ball of half of eps, 0.2, in 32 dimensions."""


class Quadratic(nn.Module):
    """Logits whose cross-entropy with class 0 is 20 + <b, x> + <x, H x> / 2."""

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        half = torch.randn((32, 32), generator=draw, dtype=torch.float64) / 8
        self.b = nn.Parameter(torch.randn(32, generator=draw, dtype=torch.float64) / 4)
        self.h = nn.Parameter(half + half.T)

    def forward(self, x: Inputs) -> Logits:
        loss = self.loss(x)
        return torch.stack([torch.zeros_like(loss), loss.expm1().log()], dim=1)

    def loss(self, x: Inputs) -> Tensor:
        flat = x.flatten(1)
        return 20 + flat @ self.b + ((flat @ self.h) * flat).sum(1) / 2

    def bordered(self, x: Inputs) -> Tensor:
        """Return [[H, g], [g', 1]] at one point."""
        g = (self.b + self.h @ x.flatten()).detach()
        return torch.cat([torch.cat([self.h.detach(), g[:, None]], 1), torch.cat([g, g.new_ones(1)])[None]])


def draws(batch: Batch) -> tuple[Tensor, Tensor]:
    noise = noise_for(batch)
    return noise.fold(2).normal(batch.x.shape[1:], torch.float64), noise.fold(3).normal((1, 1, 1), torch.float64)


def losses(model: nn.Module, x: Tensor, points: Tensor) -> Tensor:
    return losses_held(model, x, replace(BATCH, x=points))


def gradient(model: nn.Module, x: Tensor, points: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(losses(model, leaf, points).sum(), leaf, create_graph=True)
    return g


def points_of(method: SOAR, model: nn.Module, threat: Threat) -> Inner:
    with under_attack(model):
        return method.perturb(model, BATCH, threat, noise_for(BATCH))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("net", ["plain", "norm"])
def test_it_is_its_formula_and_learns_through_both_gradients(norm: Norm, net: str) -> None:
    model, threat, h = network(net, torch.float64), Threat(norm, 0.2), 0.03
    method = SOAR(weight=0.7, step=h, clip=None)
    inner, (u, t) = points_of(method, model, threat), draws(BATCH)
    z = inner.z
    terms = method.loss(model, BATCH, inner, threat, noise_for(BATCH))
    g = gradient(model, z, z)
    above = (gradient(model, z + h * u, z) - g) / h + t * g
    last = (g * u).flatten(1).sum(1) + t.flatten()
    size = torch.cat([above.flatten(1), last[:, None]], 1).norm(dim=1)
    expected = losses(model, z, z).mean() + 0.7 * (RADIUS[norm] ** 2 + 1) / 2 * size.mean()
    assert_the_same_loss(total(terms), expected, model, 1e-9)


def test_small_steps_give_the_exact_hessian_product() -> None:
    model, method = network("plain", torch.float64), SOAR(weight=1.0, step=1e-6, clip=None)
    inner, (u, t) = points_of(method, model, THREAT), draws(BATCH)
    terms = method.loss(model, BATCH, inner, THREAT, noise_for(BATCH))
    leaf = inner.z.clone().requires_grad_()
    clean = losses(model, leaf, leaf)
    (g,) = torch.autograd.grad(clean.sum(), leaf, create_graph=True)
    (product,) = torch.autograd.grad((g * u).sum(), leaf, create_graph=True)
    last = (g * u).flatten(1).sum(1) + t.flatten()
    size = torch.cat([(product + t * g).flatten(1), last[:, None]], 1).norm(dim=1)
    assert_the_same_loss(total(terms), clean.mean() + (RADIUS["Linf"] ** 2 + 1) / 2 * size.mean(), model, 1e-4)


def many(model: Quadratic, n: int) -> tuple[Batch, Tensor]:
    """Return one input many times, each with noise of its own, and the model's bordered Hessian there."""
    x = BATCH.x[:1].expand(n, -1, -1, -1).clone()
    return Batch(x, torch.zeros(n, dtype=torch.int64), torch.arange(n)), model.bordered(BATCH.x[0])


def test_its_mean_is_that_of_the_length_under_normal_numbers() -> None:
    """Between sqrt(2 / pi) of the spectral norm and the Frobenius norm."""
    model = Quadratic()
    batch, bordered = many(model, 4000)
    method = SOAR(weight=1.0, clip=None)
    terms = method.loss(model, batch, Inner(batch.x), THREAT, noise_for(batch))
    found = float(terms["curvature"].detach()) / ((RADIUS["Linf"] ** 2 + 1) / 2)
    w = torch.randn((40_000, 33), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    sizes = (w @ bordered).norm(dim=1)
    assert abs(found - sizes.mean()) < 5 * sizes.std() / 4000**0.5
    assert 0.797 * torch.linalg.matrix_norm(bordered, 2) < found < torch.linalg.matrix_norm(bordered)


def test_the_bordered_matrix_is_the_second_order_change() -> None:
    """w' A w / 2 - 1/2 = <g, v> + <v, H v> / 2 for w = (v, 1), so that (r^2 + 1) / 2 |A|_2 bounds it in the ball."""
    model, threat = Quadratic(), replace(THREAT, bounds=None)
    batch, bordered = many(model, 500)
    points = threat.sample(batch.x, noise_for(batch))
    v = torch.cat([(points - batch.x).flatten(1), torch.ones((500, 1), dtype=torch.float64)], 1)
    change = (model.loss(points) - model.loss(batch.x)).detach()
    torch.testing.assert_close(((v @ bordered) * v).sum(1) / 2 - 0.5, change)
    bound = (0.2**2 * 32 + 1) / 2 * torch.linalg.matrix_norm(bordered, 2) - 0.5
    assert (change <= bound).all() and change.max() > 0.05 * bound


@pytest.mark.parametrize("norm", NORMS)
def test_its_points_are_found_in_half_of_the_ball(norm: Norm) -> None:
    model, threat = network("plain", torch.float64), Threat(norm, 0.2)
    inner = points_of(SOAR(), model, threat)
    half = Threat(norm, 0.1)
    assert half.contains(BATCH.x, inner.z).all() and (threat.distance(BATCH.x, inner.z) > 0.01).all()

    def score(z: Tensor, rows: Tensor) -> Tensor:
        return functional.cross_entropy(model(z), BATCH.y[rows], reduction="none")

    assert torch.equal(inner.z, PGD(steps=1)(score, BATCH.x, half, noise_for(BATCH)))
    stronger = SOAR().stronger()
    assert isinstance(stronger, SOAR) and stronger.maximiser == PGD(steps=2)


def test_large_sizes_count_by_their_logarithm() -> None:
    """clip * (1 + log(a / clip)): the same value and slope at the clip, and clip / a of the slope beyond."""
    model, (size, noise) = Quadratic(), (BATCH.x.new_tensor(0.0), noise_for(BATCH))
    batch = Batch(BATCH.x, torch.zeros_like(BATCH.y), BATCH.ids)
    one = Batch(batch.x[:1], batch.y[:1], batch.ids[:1])
    plain = SOAR(weight=1.0, clip=None).loss(model, one, Inner(one.x), THREAT, noise_for(one))["curvature"]
    factor = (RADIUS["Linf"] ** 2 + 1) / 2
    size = plain / factor
    (slope,) = torch.autograd.grad(plain, model.h, retain_graph=True)
    for clip in (float(size.detach()) / 3, float(size.detach()) * 1.01):
        damped = SOAR(weight=1.0, clip=clip).loss(model, one, Inner(one.x), THREAT, noise_for(one))["curvature"]
        (slow,) = torch.autograd.grad(damped, model.h)
        beyond = clip < float(size.detach())
        expected = factor * clip * (1 + log(float(size.detach()) / clip)) if beyond else float(plain.detach())
        assert float(damped.detach()) == pytest.approx(expected)
        torch.testing.assert_close(slow, slope / 3 if beyond else slope)
    both = [
        SOAR(clip=clip).loss(model, batch, Inner(batch.x), THREAT, noise)["curvature"] for clip in (None, 1e-3)
    ]  # fmt: skip
    assert float(both[1].detach()) < 0.1 * float(both[0].detach()), "each example's, before the mean"


@pytest.mark.parametrize("norm", NORMS)
def test_where_the_loss_is_flat_only_the_border_is_left(norm: Norm) -> None:
    """|A (u, t)| = |t| without a gradient."""
    model = network("plain", torch.float64)
    with torch.no_grad():
        model.get_parameter("3.weight").zero_()
    terms = SOAR(weight=1.0).loss(model, BATCH, Inner(BATCH.x), Threat(norm, 0.2), noise_for(BATCH))
    _, t = draws(BATCH)
    torch.testing.assert_close(terms["curvature"], (RADIUS[norm] ** 2 + 1) / 2 * t.abs().mean())
    gradients = torch.autograd.grad(terms["curvature"], list(model.parameters()), allow_unused=True)
    assert all(g is None or g.isfinite().all() for g in gradients)


def test_batch_norms_averages_move_once() -> None:
    model, method = network("norm", torch.float64), SOAR()
    inner = points_of(method, model, THREAT)
    method.loss(model, BATCH, inner, THREAT, noise_for(BATCH))
    assert int(model.get_buffer("1.num_batches_tracked")) == 1
    seen = model[0](inner.z).mean((0, 2, 3))  # type: ignore[index]
    torch.testing.assert_close(model.get_buffer("1.running_mean"), 0.1 * seen)


def test_it_says_where_it_would_go_wrong() -> None:
    noise = noise_for(BATCH)
    assert SOAR().check(network("plain", torch.float64), BATCH, THREAT, noise) == []
    kinked = nn.Sequential(nn.Flatten(), nn.Linear(32, 4), nn.ReLU(), nn.Linear(4, 3)).double()
    (warning,) = SOAR().check(kinked, BATCH, THREAT, noise)
    assert "piecewise linear" in warning
    assert len(SOAR().check(network("dropout"), BATCH, THREAT, noise)) == 1


@pytest.mark.parametrize("wrong", [{"weight": -1.0}, {"step": 0.0}, {"clip": 0.0}])
def test_bad_values_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        SOAR(**wrong)  # type: ignore[arg-type]
