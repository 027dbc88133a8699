"""Attacks by patches: the best square of linear networks, feasible points, order, and the whole way of a command."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from unperturbed.attacks.base import Attack
from unperturbed.attacks.patch_climb import PatchClimb
from unperturbed.attacks.patch_search import PatchSearch
from unperturbed.errors import InputError
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.evaluation.curve import minimum_norm
from unperturbed.maximise.apgd import APGD
from unperturbed.networks.modes import under_attack
from unperturbed.noise import Noise
from unperturbed.suites.patch import PATCH
from unperturbed.threat import Threat
from unperturbed.types import Batch

ATTACKS: dict[str, Attack] = {
    "patch-pgd": PatchClimb(ascent=APGD(steps=10), places=4),
    "patch-rs": PatchSearch(queries=400),
}
every = pytest.mark.parametrize("name", ATTACKS)
SHAPE = (2, 6, 7)


def linear(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(84, 2))


def batch_of(model: nn.Module, n: int, seed: int = 0) -> Batch:
    x = torch.rand((n, *SHAPE), generator=torch.Generator().manual_seed(seed))
    return Batch(x, model(x).argmax(1).detach(), torch.arange(n))


def largest_margins(model: nn.Sequential, batch: Batch, side: int) -> Tensor:
    """Return the largest margin by a square, over all squares."""
    weight = model[1].weight.detach()
    slope = ((weight[1] - weight[0])[None] * torch.where(batch.y == 0, 1, -1)[:, None]).view(batch.x.shape)
    gain = slope * ((slope > 0).to(batch.x) - batch.x)
    logits = model(batch.x).detach()
    clean = (logits[:, 1] - logits[:, 0]) * torch.where(batch.y == 0, 1, -1)
    corners = itertools.product(range(6 - side + 1), range(7 - side + 1))
    return clean + torch.stack(
        [gain[:, :, down : down + side, across : across + side].flatten(1).sum(1) for down, across in corners]
    ).amax(0)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("side", [1, 2, 3])
def test_on_linear_networks_climbs_break_what_the_best_square_breaks_and_no_more(side: int) -> None:
    model = linear()
    batch = batch_of(model, 60)
    truth, threat = largest_margins(model, batch, side), Threat("Patch", side)
    with under_attack(model):
        climbed = ATTACKS["patch-pgd"](model, batch, threat, Noise.of(0, batch.ids), 32)
        searched = ATTACKS["patch-rs"](model, batch, threat, Noise.of(0, batch.ids), 32)
    assert torch.equal(climbed.margin > 0, truth > 0) and 5 < int((truth > 0).sum()) < 60
    assert bool((climbed.margin <= truth + 1e-5).all()) and bool((searched.margin <= truth + 1e-5).all())
    unbroken = truth <= 0
    torch.testing.assert_close(climbed.margin[unbroken], truth[unbroken], atol=1e-5, rtol=1e-4)
    assert int((searched.margin > 0).sum()) > 0.6 * int((truth > 0).sum())


@pytest.mark.slow
@every
@pytest.mark.parametrize("side", [0, 1, 3, 7, 50])
def test_points_stay_inside_with_the_margins_that_are_reported(name: str, side: int) -> None:
    model, threat = linear(1), Threat("Patch", side, (-0.5, 1.5))
    batch = batch_of(model, 9)
    with under_attack(model):
        found = ATTACKS[name](model, batch, threat, Noise.of(0, batch.ids), 8)
    assert bool(threat.contains(batch.x, found.z).all())
    logits, rows = model(found.z), torch.arange(9)
    torch.testing.assert_close(found.margin, (logits[rows, 1 - batch.y] - logits[rows, batch.y]).detach())
    assert bool((found.z != batch.x).any()) == (side > 0)


@pytest.mark.long
@pytest.mark.slow
@every
def test_an_example_has_the_same_verdict_in_any_order(name: str) -> None:
    model, threat = linear(2), Threat("Patch", 2)
    batch = batch_of(model, 24)
    turned = torch.arange(23, -1, -1)
    other = Batch(batch.x[turned], batch.y[turned], batch.ids[turned])
    with under_attack(model):
        first = ATTACKS[name](model, batch, threat, Noise.of(0, batch.ids), 8)
        second = ATTACKS[name](model, other, threat, Noise.of(0, other.ids), 8)
    torch.testing.assert_close(first.z, second.z[turned])
    assert 0 < int((first.margin > 0).sum()) < 24


@every
def test_values_that_are_not_finite_are_noticed(name: str) -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x.flatten(1).sum(1), torch.full_like(x[:, 0, 0, 0], torch.nan)], dim=1)

    batch = Batch(torch.rand(3, *SHAPE), torch.zeros(3, dtype=torch.int64), torch.arange(3))
    found = ATTACKS[name](Broken(), batch, Threat("Patch", 2), Noise.of(0, batch.ids), 8)
    assert not bool(found.finite.any())


@pytest.mark.long
@pytest.mark.slow
def test_an_evaluation_and_a_curve_agree_and_other_suites_are_refused() -> None:
    model = linear(3)
    batch = batch_of(model, 30)
    data = batch.x, batch.y
    suite = type(PATCH)("short", tuple(ATTACKS.values()), "a test")
    outcome = evaluate(model, data, Threat("Patch", 2), suite)
    distances = minimum_norm(model, data, Threat("Patch", 4), suite)
    assert distances.radii == (1.0, 2.0, 3.0, 4.0)
    assert distances.at(2.0).value == outcome.robust_accuracy.value and 0 < outcome.robust_accuracy.value < 1
    with pytest.raises(InputError, match="Take the suite 'patch'"):
        evaluate(model, data, Threat("Patch", 2), "standard")
    with pytest.raises(InputError, match="another norm"):
        evaluate(model, data, Threat("L2", 0.2), "patch")
    with pytest.raises(InputError, match="restarts 2"):
        PatchSearch(restarts=2)
