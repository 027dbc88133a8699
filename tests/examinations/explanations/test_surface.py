"""The loss around an input: in closed form where the logits are linear or the loss a polynomial."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from support.calculus import GivenLoss, Polynomial
from support.examples import NORMS, Counted, make_batch, network, noise_for, pick, untouched
from unperturbed.errors import InputError
from unperturbed.examinations.explanations.surface import AT_ONCE, loss_surface
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Logits, Model, Norm

BATCH = make_batch(6)
WIDE = make_batch(6, torch.float64)
ZERO = Batch(WIDE.x, torch.zeros_like(WIDE.y), WIDE.ids)
B = torch.randn(32, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 5
LINF = Threat("Linf", 0.2)


def steepest(norm: Norm, direction: Tensor) -> Tensor:
    """Return the maximiser of <direction, v> over the unit ball, row by row, typed again."""
    if norm == "Linf":
        return direction.sign()
    if norm == "L2":
        return direction / direction.norm(dim=1, keepdim=True)
    best = direction.abs().argmax(dim=1)
    return functional.one_hot(best, direction.shape[1]) * direction.sign()


@pytest.mark.parametrize("norm", NORMS)
def test_linear_logits_give_the_closed_form(norm: Norm) -> None:
    """f = (<v, x> + c, 0): l = log(1 + exp(-s m)), m = <v, x> + c, s = 1 for the first class and -1 for the second."""
    eps, c = 0.7, 0.1
    linear = nn.Linear(32, 2).double()
    with torch.no_grad():
        linear.weight.copy_(torch.stack([5 * B, torch.zeros(32)]))
        linear.bias.copy_(torch.tensor([c, 0.0]))
    model, batch = nn.Sequential(nn.Flatten(), linear), Batch(WIDE.x, torch.arange(6) % 2, WIDE.ids)
    found = loss_surface(model, batch, Threat(norm, eps), noise_for(batch), points=5, reach=2.0)

    v = 5 * B.expand(6, -1)
    s = (1.0 - 2 * batch.y)[:, None]
    u = eps * steepest(norm, -s * v)
    w = eps * steepest(norm, noise_for(batch).normal(batch.x.shape[1:], torch.float64).flatten(1))
    steps = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0], dtype=torch.float64)
    margins = (batch.x.flatten(1) * v).sum(1) + c
    by_u, by_w = (u * v).sum(1)[:, None] * steps, (w * v).sum(1)[:, None] * steps
    m = margins[:, None, None] + by_u[:, :, None] + by_w[:, None, :]
    torch.testing.assert_close(found.values, functional.softplus(-s[:, :, None] * m))
    assert found.along == (-2.0, -1.0, 0.0, 1.0, 2.0)


@pytest.mark.parametrize("kind", ["plain", "norm", "dropout"])
@pytest.mark.parametrize("norm", NORMS)
def test_the_middle_is_the_clean_loss_and_one_eps_along_the_gradient_is_fgsm(kind: str, norm: Norm) -> None:
    model, eps = network(kind), {"Linf": 0.1, "L2": 0.5, "L1": 2.0}[norm]
    found = loss_surface(model, BATCH, Threat(norm, eps), noise_for(BATCH), points=9)
    model.eval()
    leaf = BATCH.x.clone().requires_grad_()
    clean = functional.cross_entropy(model(leaf), BATCH.y, reduction="none")
    (g,) = torch.autograd.grad(clean.sum(), leaf)
    z = BATCH.x + eps * steepest(norm, g.flatten(1)).view(g.shape)
    assert (z < 0).any(), "the square is not cut by the box"
    torch.testing.assert_close(found.clean, clean.detach())
    torch.testing.assert_close(found.values[:, 4, 4], clean.detach())
    there = functional.cross_entropy(model(z), BATCH.y, reduction="none")
    torch.testing.assert_close(found.values[:, 8, 4], there.detach())
    assert (found.values[:, 8, 4] - found.clean).abs().min() > 1e-3, "the direction matters"
    torch.testing.assert_close(found.slopes[:, 0], (g * (z - BATCH.x)).flatten(1).sum(1))


def test_points_in_common_have_the_same_loss() -> None:
    near = loss_surface(network(), BATCH, LINF, noise_for(BATCH), points=5)
    far = loss_surface(network(), BATCH, LINF, noise_for(BATCH), points=17, reach=2.0)
    assert near.along == far.along[4:13:2]
    torch.testing.assert_close(near.values, far.values[:, 4:13:2, 4:13:2])
    torch.testing.assert_close(near.slopes, far.slopes)


def test_neither_order_nor_company_matters() -> None:
    rows = torch.tensor([4, 0, 3])
    some, model = pick(BATCH, rows), network("norm")
    whole = loss_surface(model, BATCH, LINF, noise_for(BATCH))
    found = loss_surface(model, some, LINF, noise_for(some))
    assert torch.equal(found.values, whole.values[rows]) and torch.equal(found.slopes, whole.slopes[rows])


def test_the_second_direction_is_each_examples_own() -> None:
    twice = Batch(BATCH.x[:1].expand(2, -1, -1, -1), BATCH.y[:1].expand(2), torch.tensor([7, 8]))
    first, second = loss_surface(network(), twice, LINF, noise_for(twice), points=5).values
    torch.testing.assert_close(first[:, 2], second[:, 2])
    assert (first - second).abs().max() > 1e-3
    other = loss_surface(network(), twice, LINF, noise_for(twice, seed=6), points=5).values
    assert (first - other[0]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["plain", "norm", "dropout"])
def test_network_inputs_and_random_state_are_left_alone(kind: str) -> None:
    model = network(kind)
    with untouched(model, BATCH.x, BATCH.y, BATCH.ids):
        loss_surface(model, BATCH, LINF, noise_for(BATCH), points=5)
    with pytest.raises(RuntimeError), untouched(model, BATCH.x):
        loss_surface(model, Batch(BATCH.x[:, :1], BATCH.y, BATCH.ids), LINF, noise_for(BATCH), points=5)


def test_the_callers_modes_do_not_matter() -> None:
    model = network("norm")
    expected = loss_surface(model, BATCH, LINF, noise_for(BATCH), points=5)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = loss_surface(model.eval().requires_grad_(False), BATCH, LINF, noise_for(BATCH), points=5)
    assert torch.equal(found.values, expected.values) and torch.equal(found.slopes, expected.slopes)
    assert not found.values.requires_grad and not found.slopes.requires_grad


class Widest(nn.Module):
    """Remembers the largest batch that a network has seen."""

    def __init__(self, inner: Model) -> None:
        super().__init__()
        self.inner, self.most = inner, 0

    def forward(self, x: Inputs) -> Logits:
        self.most = max(self.most, len(x))
        logits: Logits = self.inner(x)
        return logits


def test_the_network_sees_few_points_at_a_time_and_each_once() -> None:
    model = Widest(counted := Counted(network()))
    found = loss_surface(model, BATCH, LINF, noise_for(BATCH), points=33)
    assert found.values.shape == (6, 33, 33) and model.most == AT_ONCE
    assert (counted.forwards, counted.to_inputs, counted.to_weights) == (6 * (33 * 33 + 1), 6, 0)


@pytest.mark.parametrize("norm", NORMS)
def test_an_affine_loss_is_its_own_tangent_plane(norm: Norm) -> None:
    found = loss_surface(GivenLoss(Polynomial(B, offset=15.0)), ZERO, Threat(norm, 0.8), noise_for(ZERO), points=5)
    torch.testing.assert_close(found.tangent, found.values)
    assert (found.roughness < 1e-12).all() and (found.slopes[:, 0] > 0.1).all()


@pytest.mark.parametrize("curvature", [0.7, -0.7])
@pytest.mark.parametrize("reach", [0.5, 1.0, 2.0])
def test_the_roughness_of_a_round_quadratic(curvature: float, reach: float) -> None:
    """|au + bw|^2 |c| / 2 is largest in a corner of |a|, |b| <= 1: |c| (eps^2 + |<u, w>|) with |u| = |w| = eps."""
    eps, model = 0.8, GivenLoss(Polynomial(B, curvature * torch.eye(32, dtype=torch.float64), offset=15.0))
    found = loss_surface(model, ZERO, Threat("L2", eps), noise_for(ZERO), points=9, reach=reach)
    g = B + curvature * ZERO.x.flatten(1)
    u = eps * steepest("L2", g)
    w = eps * steepest("L2", noise_for(ZERO).normal(ZERO.x.shape[1:], torch.float64).flatten(1))
    expected = 0.7 * (eps**2 + (u * w).sum(1).abs()) * min(reach, 1.0) ** 2
    torch.testing.assert_close(found.roughness, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(found.slopes, torch.stack([(u * g).sum(1), (w * g).sum(1)], dim=1))


def test_without_a_gradient_the_surface_is_flat_in_its_direction() -> None:
    model = GivenLoss(Polynomial(torch.zeros(32, dtype=torch.float64), offset=1.0))
    found = loss_surface(model, ZERO, LINF, noise_for(ZERO), points=3)
    torch.testing.assert_close(found.values, torch.ones(6, 3, 3, dtype=torch.float64))
    assert (found.slopes == 0).all()


@pytest.mark.parametrize("points", [1, 4, -3])
def test_points_that_miss_the_middle_are_refused(points: int) -> None:
    with pytest.raises(InputError, match=str(points)):
        loss_surface(network(), BATCH, LINF, noise_for(BATCH), points=points)


@pytest.mark.parametrize("reach", [0.0, -1.0, math.inf, math.nan])
def test_a_reach_that_is_none_is_refused(reach: float) -> None:
    with pytest.raises(InputError, match="reach"):
        loss_surface(network(), BATCH, LINF, noise_for(BATCH), reach=reach)


def test_no_examples_are_refused() -> None:
    none = pick(BATCH, torch.tensor([], dtype=torch.int64))
    with pytest.raises(InputError, match="single example"):
        loss_surface(network(), none, LINF, noise_for(none))
