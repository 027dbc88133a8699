"""Descents to the nearest point: exact distances of linear networks, formulas typed again, and feasible points."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from support.toys import Function, linear, mlp, uniform
from unperturbed.attacks.augmented_lagrangian import AugmentedLagrangian, _penalty_slope
from unperturbed.attacks.descent import Descent, Rule
from unperturbed.attacks.fast_minimum_norm import FastMinimumNorm
from unperturbed.attacks.points import evaluated
from unperturbed.attacks.primal_dual import PrimalDual, _shortened_l1, _shortened_linf
from unperturbed.errors import InputError
from unperturbed.networks.modes import under_attack
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Norm

RULES: dict[str, Rule] = {
    "fmn": FastMinimumNorm(steps=80),
    "primal-dual": PrimalDual(steps=150),
    "alma": AugmentedLagrangian(steps=150),
}
DESCENTS = {name: Descent(name, rule, FastMinimumNorm(40, 0.1, 1e-3, 0.02, 5e-4)) for name, rule in RULES.items()}
PAIRS = [(name, norm) for name, rule in RULES.items() for norm in ("Linf", "L2", "L1") if rule.supports(norm)]
every = pytest.mark.parametrize(("name", "norm"), PAIRS)


def batch_of(model: nn.Module, x: Tensor) -> Batch:
    return Batch(x, model(x).argmax(1).detach(), torch.arange(len(x)))


def nearest(name: str, model: nn.Module, batch: Batch, threat: Threat, batch_size: int = 64) -> tuple[Tensor, Tensor]:
    with under_attack(model):
        found = DESCENTS[name].nearest(model, batch, threat, Noise.of(0, batch.ids), batch_size)
    return found.z, found.distance


@pytest.mark.slow
@every
def test_the_distance_of_linear_networks_is_that_of_their_plane_box_included(name: str, norm: Norm) -> None:
    model = linear(8)
    batch, threat = batch_of(model, uniform(40, 8)), Threat(norm, 1.0)
    slope = ((model.weight[1] - model.weight[0]) * torch.where(batch.y == 0, 1, -1)[:, None]).detach()
    logits = model(batch.x).detach()
    lead = (logits[:, 1] - logits[:, 0]) * torch.where(batch.y == 0, 1, -1)
    move = threat.to_plane(batch.x, slope, -lead)
    reached = ((slope * move).sum(1) + lead).abs() < 1e-5  # the box holds the plane
    z, distance = nearest(name, model, batch, threat)
    truth = threat.distance(move, torch.zeros_like(move))
    assert bool((distance >= truth * (1 - 1e-4))[reached].all()) and int(reached.sum()) > 30
    found = reached & distance.isfinite()
    near = 1.2 if name == "primal-dual" else 1.01  # it converges more slowly
    assert float((distance[found] <= near * truth[found] + 1e-4).float().mean()) > 0.85
    assert int(found.sum()) >= 0.85 * int(reached.sum())
    assert bool((model(z).argmax(1) != batch.y)[found].all()) and torch.equal(threat.boxed(z), z)


@pytest.mark.long
@pytest.mark.slow
@every
def test_every_distance_is_that_of_its_point_and_the_best_inside_lies_inside(name: str, norm: Norm) -> None:
    model = mlp(6, 4)
    batch, threat = batch_of(model, 2 * uniform(25, 6) - 0.5), Threat(norm, 0.3, (-0.5, 1.5))
    with under_attack(model):
        found = DESCENTS[name].nearest(model, batch, threat, Noise.of(0, batch.ids), 8)
    known = found.distance.isfinite()
    assert torch.equal(threat.distance(batch.x, found.z)[known], found.distance[known]) and bool(known.any())
    assert torch.equal(model(found.z).argmax(1) != batch.y, known)
    assert bool(threat.contains(batch.x, found.found.z).all())
    assert bool((found.distance[found.found.margin > 0] <= 0.3 + 1e-5).all())


@pytest.mark.long
@pytest.mark.slow
@every
def test_an_example_has_the_same_nearest_point_in_any_order_and_batch(name: str, norm: Norm) -> None:
    model, threat = mlp(6, 4).double(), Threat(norm, 0.3)
    batch = batch_of(model, uniform(20, 6).double())
    turned = torch.arange(19, -1, -1)
    other = Batch(batch.x[turned], batch.y[turned], batch.ids[turned])
    first, second = nearest(name, model, batch, threat, 8), nearest(name, model, other, threat, 16)
    torch.testing.assert_close(first[1], second[1][turned], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@every
def test_refined_points_are_nearer_on_a_curved_boundary(name: str, norm: Norm) -> None:
    """Outside of a ball around the middle the class changes: from points far away the descent comes near."""
    model = Function(lambda x: torch.stack([0.09 - (x - 0.5).square().sum(1), 0 * x[:, 0]], dim=1))
    x = 0.5 + 0.1 * (uniform(20, 3) - 0.5)
    batch, threat = batch_of(model, x), Threat(norm, 1.0)
    far = (x + 2 * (uniform(20, 3, seed=1) - 0.5)).clamp(0, 1)
    far = torch.where((model(far).argmax(1) == 1)[:, None], far, torch.ones_like(x))
    with under_attack(model):
        found = Descent(name, RULES[name], FastMinimumNorm(120, 0.3, 1e-3)).refine(model, batch, far, threat, 8)
    assert bool((found.distance <= threat.distance(x, far)).all())
    if norm == "L2":
        truth = 0.3 - (x - 0.5).norm(dim=1)
        assert bool((found.distance >= truth - 1e-5).all())
        assert float((found.distance <= 1.05 * truth).float().mean()) > 0.8


@pytest.mark.slow
def test_a_target_leads_to_the_nearer_boundary_of_a_less_likely_class() -> None:
    """Class 1 leads at x and is 0.5 away; class 2 is less likely, and 0.3 away."""
    model = Function(lambda x: torch.stack([0 * x[:, 0], x[:, 0] - 0.8, 3 * (x[:, 1] - 0.6)], dim=1))
    batch = batch_of(model, torch.full((2, 2), 0.3))
    polish = FastMinimumNorm(40, 0.1, 1e-3, 0.02, 5e-4)
    rules = {target: Descent("mine", PrimalDual(steps=60), polish, target) for target in (0, 1, 2, 9)}
    with under_attack(model):
        found = {
            target: descent.nearest(model, batch, Threat("L2", 1.0), Noise.of(0, batch.ids), 8).distance
            for target, descent in rules.items()
        }
    near = {target: pytest.approx([away] * 2, rel=0.02) for target, away in {0: 0.5, 1: 0.5, 2: 0.3, 9: 0.3}.items()}
    assert {target: distance.tolist() for target, distance in found.items()} == near


def test_a_point_that_is_not_finite_is_noticed() -> None:
    model = Function(lambda x: torch.stack([x.sum(1), torch.full_like(x[:, 0], torch.nan)], dim=1))
    batch = Batch(uniform(4, 3), torch.zeros(4, dtype=torch.int64), torch.arange(4))
    found = DESCENTS["fmn"].nearest(model, batch, Threat("L2", 0.1), Noise.of(0, batch.ids), 8)
    assert not bool(found.found.finite.any()) and bool(found.distance.isinf().all())


def test_no_examples_are_no_error() -> None:
    model = linear(5)
    batch = Batch(uniform(3, 5)[:0], torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    for descent in DESCENTS.values():
        assert len(descent.nearest(model, batch, Threat("L2", 0.1), Noise.of(0, batch.ids), 8).distance) == 0


@pytest.mark.parametrize("settings", [{"steps": 0}, {"step": 0.0}, {"change": -1.0}])
def test_settings_that_leave_nothing_to_do_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(InputError):
        FastMinimumNorm(**settings)  # type: ignore[arg-type]


# Formulas


def by_search(value: Callable[[Tensor], Tensor], size: int) -> Tensor:
    """Return the minimum of a convex function by gradient-free descent."""
    best, spread = torch.zeros(size, dtype=torch.float64), 1.0
    draw = torch.Generator().manual_seed(0)
    for _ in range(1500):
        trial = best + spread * torch.randn(size, generator=draw, dtype=torch.float64)
        best, spread = (trial, spread * 1.1) if value(trial) < value(best) else (best, max(spread * 0.97, 1e-6))
    return best


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("norm", ["L1", "Linf"])
def test_the_proximal_map_minimises_its_objective_in_the_box(norm: str, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    moved, metric = (torch.randn(5, generator=draw, dtype=torch.float64) for _ in range(2))
    metric, room = metric.exp(), torch.rand(5, generator=draw, dtype=torch.float64)
    weight = 0.7

    def objective(u: Tensor) -> Tensor:
        size = u.abs().sum() if norm == "L1" else u.abs().max()
        outside = (u * moved.sign() - room).clamp(min=0).sum() + (-u * moved.sign()).clamp(min=0).sum()
        return (metric * (u - moved).square()).sum() / 2 + weight * size + 1e3 * outside

    shorten = _shortened_l1 if norm == "L1" else _shortened_linf
    mine = shorten(moved[None], metric[None], torch.tensor([[weight]], dtype=torch.float64), room[None])[0]
    assert float(objective(mine)) <= float(objective(by_search(objective, 5))) + 1e-6
    assert bool((mine.abs() <= room + 1e-9).all())


def test_the_penalty_has_the_slope_of_birgins_p2() -> None:
    c = torch.linspace(-3, 3, 13, dtype=torch.float64).requires_grad_()
    rho, mu = torch.tensor(1.7, dtype=torch.float64), torch.tensor(0.6, dtype=torch.float64)
    above = mu * c + mu * rho * c**2 + rho**2 * c**3 / 6
    below = mu * c / (1 - rho * c.clamp(max=0))
    torch.where(c >= 0, above, below).sum().backward()
    torch.testing.assert_close(_penalty_slope(c.detach(), rho, mu), c.grad)


def test_the_first_radius_of_fmn_is_a_little_more_than_the_distance_of_the_boundary_to_first_order() -> None:
    model = linear(4).double()
    batch, threat = batch_of(model, uniform(10, 4).double()), Threat("L2", 1.0, None)
    rule = FastMinimumNorm(steps=1)
    logits = model(batch.x)
    lead = logits[torch.arange(10), batch.y] - logits[torch.arange(10), 1 - batch.y]
    expected = (1 + rule.change) * lead / (model.weight[0] - model.weight[1]).norm()
    memory = rule.begin(batch.x, batch.x, threat)
    z = rule.move(batch.x, evaluated(model, batch.x, batch.y, rule.loss), 0, memory, threat)
    torch.testing.assert_close(memory.radius, expected.detach())
    torch.testing.assert_close(threat.distance(batch.x, z), expected.detach().clamp(max=rule.step))


def test_a_class_of_rules_is_refused() -> None:
    with pytest.raises(InputError, match="The rule is <class"):
        Descent("mine", FastMinimumNorm)  # type: ignore[arg-type]
