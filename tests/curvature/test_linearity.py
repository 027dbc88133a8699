"""The distance from the linear model: zero on affine losses, known on quadratics, and a bound anywhere."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from support.calculus import GivenLoss, Polynomial
from support.examples import NORMS, make_batch, network, noise_for, untouched
from unperturbed.curvature.linearity import least_linear, linearity_gap
from unperturbed.curvature.products import dot
from unperturbed.maximise.adam import Adam
from unperturbed.maximise.ascent import Maximiser
from unperturbed.maximise.pgd import PGD
from unperturbed.networks.modes import under_attack
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Norm

EPS: dict[Norm, float] = {"Linf": 0.2, "L2": 0.8, "L1": 3.0}
BATCH = make_batch(8, torch.float64)
ZERO = Batch(BATCH.x, torch.zeros_like(BATCH.y), BATCH.ids)
B = torch.randn(32, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 5


@pytest.mark.parametrize("norm", NORMS)
def test_the_gap_is_zero_on_affine_losses(norm: Norm) -> None:
    model, threat = GivenLoss(Polynomial(B)), Threat(norm, EPS[norm])
    with under_attack(model):
        found = linearity_gap(model, ZERO, threat, noise_for(ZERO), PGD(steps=5))
    assert (threat.distance(ZERO.x, found.z) > 0.5 * EPS[norm]).any() and (found.gap < 1e-12).all()
    torch.testing.assert_close(found.slope, (found.z - ZERO.x).flatten(1) @ B)
    torch.testing.assert_close(found.far - found.clean, found.slope)


@pytest.mark.parametrize("curvature", [0.7, -0.7])
def test_the_gap_is_known_on_a_round_quadratic(curvature: float) -> None:
    """l = <b, x> + c |x|^2 / 2 has the gap |c| eps^2 / 2 under L2, whatever its gradient; any climb finds it."""
    model = GivenLoss(Polynomial(B, curvature * torch.eye(32, dtype=torch.float64), offset=15.0))
    threat = Threat("L2", 0.8, None)
    with under_attack(model):
        found = linearity_gap(model, ZERO, threat, noise_for(ZERO), PGD(steps=5, step_size=1.0))
    torch.testing.assert_close(found.gap, torch.full_like(found.gap, 0.7 * 0.8**2 / 2), rtol=1e-6, atol=0)
    torch.testing.assert_close(found.far - found.clean - found.slope, found.gap * (1 if curvature > 0 else -1))


@pytest.mark.parametrize("norm", NORMS)
def test_gap_and_slope_bound_the_change_of_the_loss(norm: Norm) -> None:
    """|l(z) - l(x)| <= gamma + |slope| (eq. 6); and what is returned is what it says, computed again here."""
    model, threat = network("dropout", torch.float64), Threat(norm, EPS[norm])
    with untouched(model, *(BATCH.x, BATCH.y)), under_attack(model):
        found = linearity_gap(model, BATCH, threat, noise_for(BATCH), PGD(steps=4))
    model.eval()
    leaf = BATCH.x.clone().requires_grad_()
    clean = functional.cross_entropy(model(leaf), BATCH.y, reduction="none")
    (g,) = torch.autograd.grad(clean.sum(), leaf)
    far = functional.cross_entropy(model(found.z), BATCH.y, reduction="none")
    slope = ((found.z - BATCH.x) * g).flatten(1).sum(1)
    for mine, theirs in zip(
        (found.clean, found.far, found.slope, found.gap), (clean, far, slope, (far - clean - slope).abs()), strict=True
    ):
        assert not mine.requires_grad
        torch.testing.assert_close(mine, theirs.detach())
    assert ((found.far - found.clean).abs() <= found.gap + found.slope.abs() + 1e-12).all()
    assert threat.contains(BATCH.x, found.z).all() and (found.gap > 1e-4).all()


def climbed(step: Callable[[Inputs, Tensor, int], Inputs], start: Inputs, steps: int, exact: bool) -> Inputs:
    """Return where a search of |l(z) - l(x) - <z - x, g>| ends, by plain autograd."""
    model = network("plain", torch.float64).eval()

    def loss(z: Inputs) -> Tensor:
        return functional.cross_entropy(model(z), BATCH.y, reduction="none")

    leaf = BATCH.x.clone().requires_grad_()
    clean = loss(leaf)
    (g,) = torch.autograd.grad(clean.sum(), leaf)
    z = start
    for k in range(steps):
        z = z.detach().requires_grad_()
        moved = z - BATCH.x
        gap = (loss(z) - clean.detach() - ((moved if exact else moved.detach()) * g).flatten(1).sum(1)).abs()
        z = step(z.detach(), torch.autograd.grad(gap.sum(), z)[0], k)
    return z.detach()


@pytest.mark.parametrize("exact", [True, False])
def test_the_search_climbs_the_gap_or_the_loss_alone(exact: bool) -> None:
    """With `exact=False` the direction is sign(l(z) - linear model) * gradient of l, as in the released code."""
    threat, model = Threat("Linf", 0.2), network("plain", torch.float64)
    with under_attack(model):
        z = least_linear(model, BATCH, threat, noise_for(BATCH), PGD(steps=3, step_size=0.5), exact=exact)

    def step(z: Inputs, gradient: Tensor, k: int) -> Inputs:
        return (BATCH.x + (z + 0.1 * gradient.sign() - BATCH.x).clamp(-0.2, 0.2)).clamp(0, 1)

    start = threat.sample(BATCH.x, noise_for(BATCH))
    torch.testing.assert_close(z, climbed(step, start, 3, exact), rtol=0, atol=1e-12)
    other = climbed(step, start, 3, not exact)
    assert (z - other).abs().max() > 0.05, "the two searches differ"


def test_the_released_search_is_adam_in_input_units() -> None:
    """Uniform start, ten steps of Adam of rate 0.1 with torch's own moments, cut to the cube and the box after each."""
    eps, model = 8 / 255, network("plain", torch.float64)
    threat, maximiser = Threat("Linf", eps), Adam(steps=10, step_size=0.1 / eps)
    with under_attack(model):
        z = least_linear(model, BATCH, threat, noise_for(BATCH), maximiser, exact=False)
    point = torch.nn.Parameter(threat.sample(BATCH.x, noise_for(BATCH)))
    adam = torch.optim.Adam([point], lr=0.1, eps=1e-9, maximize=True)

    def step(z: Inputs, gradient: Tensor, k: int) -> Inputs:
        point.data, point.grad = z, gradient
        adam.step()
        return (BATCH.x + (point.data - BATCH.x).clamp(-eps, eps)).clamp(0, 1)

    torch.testing.assert_close(z, climbed(step, point.data.clone(), 10, False), rtol=0, atol=1e-8)


class Standing(Maximiser):
    """Looks at the score at its start, and stays there."""

    def __call__(self, score, x, threat, noise, start=None):  # type: ignore[no-untyped-def]
        self.start, self.rows = start, torch.tensor([3, 0])
        self.values = score(start[self.rows] * 0.9, self.rows)
        return start


def test_the_score_follows_its_rows_and_the_search_starts_at_random() -> None:
    """A search may ask for any examples in any order."""
    model, threat, standing = network("plain", torch.float64), Threat("L2", 0.5), Standing()
    with under_attack(model):
        z = least_linear(model, BATCH, threat, noise_for(BATCH), standing)
    assert torch.equal(z, threat.sample(BATCH.x, noise_for(BATCH))) and torch.equal(z, standing.start)
    for value, row in zip(standing.values, standing.rows.tolist(), strict=True):
        leaf = BATCH.x[row : row + 1].clone().requires_grad_()
        clean = functional.cross_entropy(model(leaf), BATCH.y[row : row + 1])
        (g,) = torch.autograd.grad(clean, leaf)
        point = 0.9 * z[row : row + 1]
        far = functional.cross_entropy(model(point), BATCH.y[row : row + 1])
        torch.testing.assert_close(value, (far - clean - dot(point - leaf, g)[0]).abs())
