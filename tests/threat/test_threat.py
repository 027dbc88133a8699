"""The geometry of the three balls cut by the box: oracles that certify each other, brute force, and known bugs."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize
from scipy.stats import kstest
from torch import Tensor

from unperturbed.errors import InputError
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Bounds, Norm

NORMS: tuple[Norm, ...] = ("Linf", "L2", "L1")
BOXES = ("unit", "per feature", "half open", "none")


def make_box(kind: str, shape: tuple[int, ...], draw: torch.Generator) -> Bounds:
    low = torch.rand(shape, generator=draw, dtype=torch.float64)
    return {
        "unit": (0.0, 1.0),
        "per feature": (-low, 2 * torch.rand(shape, generator=draw, dtype=torch.float64) * (low > 0.2)),
        "half open": (torch.zeros(shape), torch.full(shape, math.inf)),
        "none": None,
    }[kind]


def make_case(
    seed: int, norm: Norm, box: str, shape: tuple[int, ...], eps: float, scale: float, dtype: torch.dtype, n: int = 7
) -> tuple[Threat, Tensor, Tensor]:
    """Return a threat, inputs inside the box (many at its bounds), and arbitrary vectors (with zeros and ties)."""
    draw = torch.Generator().manual_seed(seed)
    threat = Threat(norm, eps, make_box(box, shape, draw))
    low, high = threat.limits(torch.zeros((n, *shape), dtype=dtype))
    x = low.clamp(min=-3) + torch.rand((n, *shape), generator=draw).to(dtype) * (high.clamp(max=3) - low.clamp(min=-3))
    place = torch.rand(x.shape, generator=draw)
    x = torch.where(place < 0.15, low.clamp(min=-3), torch.where(place > 0.85, high.clamp(max=3), x))
    vector = scale * torch.randn(x.shape, generator=draw).to(dtype)
    vector = torch.where(torch.rand(x.shape, generator=draw) < 0.2, scale * vector.sign(), vector)
    vector = torch.where(torch.rand(x.shape, generator=draw) < 0.1, 0.0, vector)
    return threat, x.clamp(low, high), vector


cases = given(
    seed=st.integers(0, 2**31),
    norm=st.sampled_from(NORMS),
    box=st.sampled_from(BOXES),
    shape=st.sampled_from([(), (1,), (5,), (3, 4, 4), (300,)]),
    eps=st.sampled_from([0.0, 1e-3, 8 / 255, 0.3, 1.0, 12.0, 1000.0]),
    scale=st.sampled_from([1e-4, 0.1, 1.0, 30.0, 1e4]),
)


def inner(a: Tensor, b: Tensor) -> Tensor:
    return (a.double() * b.double()).flatten(1).sum(1) if a.dim() > 1 else a.double() * b.double()


@pytest.mark.slow
@cases
@settings(max_examples=150, deadline=None)
def test_projection_is_the_nearest_point(
    seed: int, norm: Norm, box: str, shape: tuple[int, ...], eps: float, scale: float
) -> None:
    """p is the projection of z on a convex set exactly when no point s of it has <z - p, s - p> > 0."""
    threat, x, step = make_case(seed, norm, box, shape, eps, scale, torch.float64)
    z = x + step
    p = threat.project(x, z)
    assert threat.contains(x, p).all()
    best = threat.maximise_linear(x, z - p)
    room_for_rounding = 1e-9 * (1e-7 + z.sub(p).abs().sum()) * (eps + 1e-7)
    assert (inner(z - p, best - p) <= room_for_rounding).all()


@pytest.mark.slow
@cases
@settings(max_examples=100, deadline=None)
def test_results_are_feasible_in_float32_and_projection_is_idempotent(
    seed: int, norm: Norm, box: str, shape: tuple[int, ...], eps: float, scale: float
) -> None:
    threat, x, step = make_case(seed, norm, box, shape, eps, scale, torch.float32)
    noise = Noise.of(seed, torch.arange(len(x)))
    p = threat.project(x, x + step)
    for z in (p, threat.sample(x, noise), threat.maximise_linear(x, step)):
        assert z.dtype == x.dtype and z.shape == x.shape
        assert threat.contains(x, z).all()
        assert torch.equal(threat.project(x, z), z)
    direction = threat.steepest_ascent(p, step)
    assert direction.isfinite().all() and threat.contains(x, threat.project(x, p + eps * direction)).all()


@cases
@settings(max_examples=50, deadline=None)
def test_float32_agrees_with_float64(
    seed: int, norm: Norm, box: str, shape: tuple[int, ...], eps: float, scale: float
) -> None:
    threat, x, step = make_case(seed, norm, box, shape, eps, scale, torch.float32)
    z = x + step
    single, double = threat.project(x, z), threat.project(x.double(), z.double())
    assert torch.allclose(single.double(), double, rtol=1e-5, atol=1e-5 * (1 + min(eps, scale)) + 1e-6 * scale)
    exact = threat.maximise_linear(x.double(), step.double())
    gain, loss = inner(step, exact - x), inner(step, exact - threat.maximise_linear(x, step))
    assert (loss.abs() <= 1e-5 * gain + 1e-6 * scale * x[0].numel()).all()


@pytest.mark.parametrize("norm", NORMS)
def test_a_gray_image_stays_feasible_although_every_rounding_error_points_the_same_way(norm: Norm) -> None:
    x = torch.full((4, 3, 32, 32), 0.5)
    for eps in (0.031, 0.1, 0.5, 3.0):
        threat = Threat(norm, eps)
        for step in (torch.ones_like(x), -torch.ones_like(x), 1e-2 * torch.ones_like(x)):
            assert threat.contains(x, threat.project(x, x + step)).all()
            assert threat.contains(x, threat.maximise_linear(x, step)).all()


@pytest.mark.parametrize("norm", NORMS)
def test_large_images_and_large_features_stay_feasible(norm: Norm) -> None:
    draw = torch.Generator().manual_seed(0)
    for scale, eps in ((1.0, 3.0), (1000.0, 30.0)):
        x = scale * torch.rand((2, 3, 224, 224), generator=draw)
        z = x + scale * torch.randn(x.shape, generator=draw)
        threat = Threat(norm, eps, (0.0, scale))
        assert threat.contains(x, threat.project(x, z)).all()
        assert threat.contains(x, threat.maximise_linear(x, z - x)).all()
        assert threat.contains(x, threat.sample(x, Noise.of(0, torch.arange(2)))).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("seed", range(8))
def test_maximise_linear_agrees_with_a_solver(norm: Norm, seed: int) -> None:
    d = 4
    threat, x, g = make_case(seed, norm, "per feature", (d,), 0.4, 1.0, torch.float64, n=3)
    low, high = threat.limits(x)
    found = inner(g, threat.maximise_linear(x, g) - x)
    for k in range(len(x)):
        down, up, gradient = (low - x[k]).numpy(), (high - x[k]).numpy(), g[k].numpy()
        if norm == "L2":
            ball = {"type": "ineq", "fun": lambda v: threat.eps**2 - v @ v, "jac": lambda v: -2 * v}
            best = -minimize(
                lambda v, c: -v @ c,
                np.zeros(d),
                (gradient,),
                jac=lambda v, c: -c,
                bounds=list(zip(down, up, strict=True)),
                constraints=ball,
                method="SLSQP",
                options={"ftol": 1e-12, "maxiter": 500},
            ).fun
        else:  # v = a - b with a, b >= 0
            cost = np.concatenate([-gradient, gradient])
            caps = np.concatenate([up, -down]) if norm == "L1" else np.concatenate([up, -down]).clip(max=threat.eps)
            budget = threat.eps if norm == "L1" else 1e9
            best = -linprog(cost, A_ub=np.ones((1, 2 * d)), b_ub=[budget], bounds=[(0, c) for c in caps]).fun
        assert found[k].item() == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_a_budget_that_covers_the_box_reaches_its_corner(norm: Norm) -> None:
    threat, x, g = make_case(1, norm, "unit", (300,), 1000.0, 1.0, torch.float32)
    corner = torch.where(g > 0, 1.0, torch.where(g < 0, 0.0, x))
    assert torch.allclose(threat.maximise_linear(x, g), corner, atol=1e-6)


def test_the_l1_budget_goes_to_the_largest_gradients_first() -> None:
    threat, x, g = make_case(2, "L1", "unit", (300,), 70.0, 1.0, torch.float64)
    spent = (threat.maximise_linear(x, g) - x).abs()
    room = torch.where(g > 0, 1 - x, x)
    assert torch.allclose(spent.sum(1), torch.tensor(70.0, dtype=torch.float64))
    for k in range(len(x)):
        worst_used = g[k].abs()[spent[k] > 1e-9].min()
        assert torch.allclose(spent[k][g[k].abs() > worst_used], room[k][g[k].abs() > worst_used])


def test_distortion_is_the_share_of_the_largest_euclidean_distance() -> None:
    """1 at the cube's corners, 1 / sqrt(d) in the middle of its faces, 1 where a ball's ray ends, 0 at x."""
    x = torch.rand((3, 2, 4), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    corner, one = torch.ones_like(x), torch.zeros_like(x)
    corner[1] *= -1
    one[:, 1, 2] = -1
    for norm, vertex, face in (("Linf", corner, one), ("L2", one, 8**-0.5 * corner), ("L1", one, corner / 8)):
        threat = Threat(norm, 0.3, None)
        assert threat.contains(x, x + 0.3 * vertex).all() and threat.contains(x, x + 0.3 * face).all()
        assert torch.allclose(threat.distortion(x, x + 0.3 * vertex), torch.ones(3, dtype=torch.float64))
        share = 1.0 if norm == "L2" else 8**-0.5
        assert torch.allclose(threat.distortion(x, x + 0.3 * face), torch.full((3,), share, dtype=torch.float64))
        assert torch.allclose(threat.distortion(x, x + 0.15 * face), torch.full((3,), share / 2, dtype=torch.float64))
        assert not threat.distortion(x, x).any()


@pytest.mark.parametrize("norm", NORMS)
def test_distortion_lies_between_0_and_1_and_is_0_without_a_budget(norm: Norm) -> None:
    threat, x, g = make_case(4, norm, "unit", (3, 4, 4), 0.7, 2.0, torch.float32)
    z = threat.project(x, x + g)
    found = threat.distortion(x, z)
    expected = (z - x).flatten(1).norm(dim=1) / (0.7 * (48**0.5 if norm == "Linf" else 1))
    assert torch.allclose(found, expected) and (found > 0).all() and (found <= 1 + 1e-6).all()
    assert torch.equal(replace(threat, eps=0.0).distortion(x, x), torch.zeros(len(x)))


@pytest.mark.parametrize("norm", NORMS)
def test_dual_norm_is_what_the_best_point_gains(norm: Norm) -> None:
    threat, x, g = make_case(3, norm, "none", (40,), 0.7, 2.0, torch.float64)
    gain = inner(g, threat.maximise_linear(x, g) - x)
    assert torch.allclose(threat.dual_norm(g), gain / threat.eps, rtol=1e-5)
    order = {"Linf": 1, "L2": 2, "L1": math.inf}[norm]
    assert torch.allclose(threat.dual_norm(g), torch.linalg.vector_norm(g, order, dim=1))
    order = {"Linf": math.inf, "L2": 2, "L1": 1}[norm]
    assert torch.allclose(threat.distance(x, x + g), torch.linalg.vector_norm(g, order, dim=1))


@pytest.mark.parametrize(
    ("norm", "eps", "d"),
    [("Linf", 0.3, 784), ("L2", 3.0, 784), ("L1", 12.0, 784), ("Linf", 0.3, 5), ("L2", 0.5, 5), ("L1", 0.8, 5)],
)
def test_projected_steepest_ascent_reaches_the_maximum_of_a_linear_score(norm: Norm, eps: float, d: int) -> None:
    """With the box active. In L2 the angle shrinks by e^-a over a step a (in radii), from a right angle to begin with:

    after a path of 2.5 radii 1.3% are missing, whatever the number of steps, so that L2 gets a path of 5.
    """
    steps, path = 200, 5.0 if norm == "L2" else 2.5
    draw = torch.Generator().manual_seed(d)
    x = torch.rand((32, d), generator=draw)
    place = torch.rand(x.shape, generator=draw)
    x = torch.where(place < 0.3, 0.0, torch.where(place > 0.9, 1.0, x))
    g = torch.randn(x.shape, generator=draw)
    threat = Threat(norm, eps)
    best = inner(g, threat.maximise_linear(x, g) - x)
    free = inner(g, replace(threat, bounds=None).maximise_linear(x, g) - x)
    assert (best < free - 1e-3).float().mean() > 0.5, "the box must matter here"
    z = threat.sample(x, Noise.of(0, torch.arange(len(x))))
    for _ in range(steps):
        z = threat.project(x, z + path / steps * eps * threat.steepest_ascent(z, g))
    assert threat.contains(x, z).all()
    assert (inner(g, z - x) >= (1 - 1e-3) * best).all()


@pytest.mark.parametrize("norm", NORMS)
def test_the_maximum_of_a_linear_score_is_a_fixed_point(norm: Norm) -> None:
    for seed in range(5):
        threat, x, g = make_case(seed, norm, "unit", (60,), 2.0, 1.0, torch.float64)
        best = threat.maximise_linear(x, g)
        again = threat.project(x, best + 0.1 * threat.eps * threat.steepest_ascent(best, g))
        assert torch.allclose(inner(g, again), inner(g, best), rtol=1e-9)


@pytest.mark.parametrize("norm", NORMS)
def test_steepest_ascent_has_unit_length_on_the_coordinates_with_room(norm: Norm) -> None:
    z = torch.tensor([[1.0, 0.5, 0.0, 0.5, 0.5]])
    g = torch.tensor([[9.0, 3.0, -5.0, -2.0, 3.0]])
    v = Threat(norm, 0.5).steepest_ascent(z, g)
    room = torch.tensor([[0.0, 1.0, 0.0, 1.0, 1.0]])
    assert Threat(norm, 0.5).distance(0 * z, v * room).item() == pytest.approx(1)
    assert (v * g >= 0).all()
    expected = {
        "Linf": g.sign(),
        "L2": g / math.sqrt(22),
        "L1": torch.tensor([[0.5, 0.5, -0.5, 0.0, 0.5]]),
    }[norm]
    assert torch.allclose(v, expected)


@pytest.mark.parametrize("norm", NORMS)
def test_a_coordinate_one_rounding_step_from_its_bound_has_no_room(norm: Norm) -> None:
    z = torch.tensor([[1.0, 0.5, 0.0, 0.5]])
    g = torch.tensor([[9.0, 3.0, -5.0, -2.0]])
    nearly = torch.nextafter(z, torch.full_like(z, 0.5))
    threat = Threat(norm, 0.5)
    assert torch.equal(threat.steepest_ascent(nearly, g), threat.steepest_ascent(z, g))


@pytest.mark.parametrize("norm", NORMS)
def test_nothing_can_move_where_the_box_holds_everything(norm: Norm) -> None:
    threat, z = Threat(norm, 0.5), torch.ones(2, 6)
    v = threat.steepest_ascent(z, torch.rand(2, 6))
    assert torch.equal(v, torch.ones_like(v) if norm == "Linf" else torch.zeros_like(v))
    assert torch.equal(threat.project(z, z + v), z)
    assert torch.equal(threat.maximise_linear(z, torch.rand(2, 6)), z)


@pytest.mark.parametrize("norm", NORMS)
def test_an_eps_of_zero_leaves_only_the_input(norm: Norm) -> None:
    threat, x = Threat(norm, 0), torch.rand(3, 2, 4)
    assert torch.equal(threat.project(x, torch.rand(3, 2, 4)), x)
    assert torch.equal(threat.sample(x, Noise.of(0, torch.arange(3))), x)
    assert torch.equal(threat.maximise_linear(x, torch.randn(3, 2, 4)), x)


@pytest.mark.parametrize("norm", NORMS)
def test_what_is_not_a_number_is_not_hidden_and_does_not_hang(norm: Norm) -> None:
    threat, x = Threat(norm, 0.5), torch.rand(3, 2000)
    z = torch.rand(3, 2000)
    z[0, 3] = math.nan
    z[1, 4] = math.inf
    p = threat.project(x, z)
    assert p[0, 3].isnan() and not threat.contains(x, p)[0]
    assert threat.contains(x, p)[2]
    assert torch.equal(p[2], threat.project(x[2:], z[2:])[0])
    assert not threat.maximise_linear(x, z)[2].isnan().any()
    threat.steepest_ascent(x, z)


@pytest.mark.parametrize("norm", NORMS)
def test_results_do_not_depend_on_the_batch_or_the_memory_format(norm: Norm) -> None:
    threat, x, g = make_case(5, norm, "unit", (3, 8, 8), 4.0, 1.0, torch.float32, n=16)
    noise = Noise.of(1, torch.arange(16))
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))

    def everything(rows: Tensor, memory_format: torch.memory_format = torch.contiguous_format) -> list[Tensor]:
        a, b = x[rows].contiguous(memory_format=memory_format), g[rows].contiguous(memory_format=memory_format)
        return [
            threat.project(a, a + b),
            threat.sample(a, noise.rows(rows)),
            threat.maximise_linear(a, b),
            threat.steepest_ascent(a, b),
        ]

    whole = everything(torch.arange(16))
    for permuted, one, last, full in zip(
        everything(order), everything(order[:1]), everything(torch.arange(16), torch.channels_last), whole, strict=True
    ):
        assert torch.equal(permuted, full[order])
        assert torch.equal(one, full[order[:1]])
        assert torch.allclose(last, full, atol=1e-6)
        assert last.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (0, 5), (4,), (1, 1)])
def test_empty_batches_and_single_numbers(norm: Norm, shape: tuple[int, ...]) -> None:
    threat, x = Threat(norm, 0.25), torch.full(shape, 0.5)
    assert torch.equal(threat.project(x, x + 1), x + 0.25)
    assert torch.equal(threat.maximise_linear(x, x), x + 0.25)
    assert torch.equal(threat.steepest_ascent(x, x), torch.ones_like(x))
    assert threat.contains(x, threat.sample(x, Noise.of(0, torch.arange(len(x))))).all()
    for value in (threat.distance(x, x), threat.dual_norm(x), threat.contains(x, x)):
        assert value.shape == x.shape[:1]


@pytest.mark.parametrize("norm", NORMS)
def test_the_callers_tensors_stay_as_they_are(norm: Norm) -> None:
    threat, x, g = make_case(5, norm, "per feature", (20,), 0.5, 1.0, torch.float32)
    assert isinstance(threat.bounds, tuple)
    tensors = [x, g, *threat.bounds]
    before = [torch.as_tensor(t).clone() for t in tensors]
    g.requires_grad_(True)
    for result in (threat.project(x, g), threat.maximise_linear(x, g), threat.steepest_ascent(x, g)):
        assert not result.requires_grad
    threat.sample(x, Noise.of(0, torch.arange(len(x))))
    threat.contains(x, g), threat.distance(x, g), threat.dual_norm(g)
    assert all(torch.equal(torch.as_tensor(t), b) for t, b in zip(tensors, before, strict=True))


@pytest.mark.parametrize("norm", NORMS)
def test_samples_are_uniform(norm: Norm) -> None:
    d, n = 3, 4000
    threat = Threat(norm, 0.2, None)
    delta = threat.sample(torch.full((n, d), 0.5), Noise.of(0, torch.arange(n))) - 0.5
    lengths = threat.distance(0 * delta, delta) / threat.eps
    assert kstest(lengths.numpy(), lambda t: np.clip(t, 0, 1) ** d).pvalue > 1e-3  # uniform: volume grows as t^d
    assert abs(delta.mean(0)).max() < 0.01
    assert torch.corrcoef(delta.T).sub(torch.eye(d)).abs().max() < 0.06
    if norm == "L1":  # a simplex of side 1 in each octant: given the signs, each share is Beta(1, d)
        shares = (delta.abs() / delta.abs().sum(1, keepdim=True))[:, 0]
        assert kstest(shares.numpy(), lambda t: 1 - (1 - t) ** (d - 1)).pvalue > 1e-3


def test_linf_samples_are_uniform_in_what_the_box_leaves() -> None:
    x = torch.full((4000, 1), 0.95)
    z = Threat("Linf", 0.2).sample(x, Noise.of(0, torch.arange(4000)))
    assert kstest(z[:, 0].numpy(), "uniform", (0.75, 0.25)).pvalue > 1e-3


# Known bugs of other projects.


@pytest.mark.parametrize("tiny", [1e-12, 1e-25, 1e-40])
@pytest.mark.parametrize("bounds", [(0.0, 1.0), None])
@pytest.mark.parametrize("norm", NORMS)
def test_small_gradients_lead_as_far_as_large_ones_s17(norm: Norm, bounds: Bounds, tiny: float) -> None:
    """A guard against division by zero must not swallow the small gradients of a saturated network."""
    threat = Threat(norm, 0.5, bounds)
    x = 0.5 + 0.3 * torch.rand((4, 3, 6, 6), generator=torch.Generator().manual_seed(0))
    g = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).mul(64).round()  # exact when scaled
    factor = torch.tensor([1.0, tiny, 1e25, 1.0]).view(-1, 1, 1, 1)
    if tiny < 1e-38:  # numbers this small have lost digits
        g = g.sign()
    assert torch.allclose(threat.maximise_linear(x, factor * g), threat.maximise_linear(x, g), atol=1e-6)
    assert torch.allclose(threat.steepest_ascent(x, factor * g), threat.steepest_ascent(x, g), atol=1e-6)
    expected = factor.flatten().double() * threat.dual_norm(g.double())
    assert torch.allclose(threat.dual_norm(factor * g).double(), expected, rtol=1e-3)
    assert threat.dual_norm(factor * g)[1] > 0


@pytest.mark.parametrize("norm", NORMS)
def test_small_gradients_count_beside_large_ones_that_the_box_blocks_s17(norm: Norm) -> None:
    threat = Threat(norm, 0.3)
    x = torch.tensor([[1.0, 0.5, 0.5, 0.5]])
    g = torch.tensor([[1.0, 3e-25, -2e-25, 1e-25]])
    alone = torch.tensor([[0.0, 3.0, -2.0, 1.0]])
    assert torch.allclose(threat.maximise_linear(x, g), threat.maximise_linear(x, alone), atol=1e-6)
    expected = threat.project(x, x + threat.steepest_ascent(x, alone))
    assert torch.allclose(threat.project(x, x + threat.steepest_ascent(x, g)), expected, atol=1e-6)


@pytest.mark.parametrize("bounds", [(0.0, 1.0), None])
@pytest.mark.parametrize("norm", NORMS)
def test_a_gradient_of_zero_gives_no_nan_s17(norm: Norm, bounds: Bounds) -> None:
    threat, x = Threat(norm, 0.5, bounds), torch.rand((3, 3, 6, 6), generator=torch.Generator().manual_seed(0))
    g = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    alone = threat.maximise_linear(x[:1], g[:1]), threat.steepest_ascent(x[:1], g[:1])
    g[1] = 0
    assert torch.equal(threat.maximise_linear(x, g)[1], x[1])
    assert torch.equal(threat.steepest_ascent(x, g)[1], 0 * x[1])
    assert torch.equal(threat.project(x, x), x)
    assert threat.dual_norm(g)[1] == 0
    assert torch.equal(threat.maximise_linear(x, g)[:1], alone[0]), "the neighbours must not notice"
    assert torch.equal(threat.steepest_ascent(x, g)[:1], alone[1])


@pytest.mark.parametrize("norm", NORMS)
def test_a_random_start_spends_the_budget_and_does_not_add_to_it_s18(norm: Norm) -> None:
    threat = Threat(norm, 0.5)
    x = torch.rand((64, 50), generator=torch.Generator().manual_seed(0))
    z = threat.sample(x, Noise.of(0, torch.arange(64)))
    assert threat.contains(x, z).all()
    for _ in range(5):
        z = threat.project(x, z + 0.5 * threat.eps * threat.steepest_ascent(z, torch.ones_like(z)))
        assert threat.contains(x, z).all(), "the ball is centred on x, not on the start or the last iterate"


@pytest.mark.parametrize("norm", NORMS)
def test_results_stay_inside_the_box_s18(norm: Norm) -> None:
    x = torch.rand((64, 50), generator=torch.Generator().manual_seed(0)).round()
    threat = Threat(norm, 20.0)
    noise = Noise.of(0, torch.arange(64))
    far = 50 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    for z in (threat.sample(x, noise), threat.project(x, far), threat.maximise_linear(x, far)):
        assert z.min() >= 0 and z.max() <= 1


@pytest.mark.parametrize("norm", NORMS)
def test_a_budget_overdrawn_by_a_ten_thousandth_is_refused_s18(norm: Norm) -> None:
    threat, x = Threat(norm, 0.5), torch.full((1, 20), 0.25, dtype=torch.float64)
    direction = torch.zeros_like(x)
    direction[0, 3] = 0.5
    assert threat.contains(x, x + direction).all()
    assert not threat.contains(x, x + direction / (1 - 1e-4)).any()
    assert not threat.contains(x, x + direction * (1 + 3e-6)).any()


@pytest.mark.parametrize("norm", NORMS)
def test_contains_refuses_what_is_outside_the_box_by_one_rounding_step(norm: Norm) -> None:
    threat, x = Threat(norm, 0.5), torch.full((1, 3), 0.9)
    top = torch.ones(1, 3)
    assert threat.contains(x, top).all()
    assert not threat.contains(x, torch.nextafter(top, 2 * top)).any()


# Words.


@pytest.mark.parametrize(
    ("text", "norm", "eps", "shown"),
    [
        ("Linf:8/255", "Linf", 8 / 255, "Linf:8/255"),
        ("l2:0.5", "L2", 0.5, "L2:0.5"),
        ("L1:12", "L1", 12.0, "L1:12"),
        ("inf:.3", "Linf", 0.3, "Linf:0.3"),
        (" 2 : 1e-3 ", "L2", 1e-3, "L2:0.001"),
        ("1:0", "L1", 0.0, "L1:0"),
        ("LINF:0.0123456789", "Linf", 0.0123456789, "Linf:0.0123456789"),
    ],
)
def test_parse_reads_what_str_writes(text: str, norm: Norm, eps: float, shown: str) -> None:
    threat = Threat.parse(text)
    assert (threat.norm, threat.eps, threat.bounds) == (norm, eps, (0.0, 1.0))
    assert str(threat) == shown
    assert Threat.parse(str(threat)).eps == eps


def test_bounds_other_than_the_usual_are_shown() -> None:
    assert str(Threat("L2", 1, (-1, 2))) == "L2:1 within [-1, 2]"
    assert str(Threat.parse("L2:1", None)) == "L2:1 without bounds"
    assert str(Threat("L2", 1, (torch.zeros(3), torch.ones(3)))) == "L2:1 within bounds per feature"


@pytest.mark.parametrize(
    "text",
    ["", "8/255", "Linf", "Linf:", "L3:1", "Linf:a", "Linf:1/0", "Linf:-1", "L2:nan", "L2:inf", "L2:1e999"]
    + ["Linf:2**3", "Linf:__import__('os')", "Linf:8/255/2", "Linf:0.3,0.5"],
)
def test_parse_refuses_everything_else_and_shows_the_form(text: str) -> None:
    with pytest.raises(InputError, match="Linf|eps is"):
        Threat.parse(text)


@pytest.mark.parametrize("eps", [-0.1, math.nan, math.inf, "8/255", None, True])
def test_an_impossible_eps_is_refused_with_its_value(eps: object, unchecked: None) -> None:
    with pytest.raises(InputError, match=f"eps is {eps!r}"):
        Threat("Linf", eps)  # type: ignore[arg-type]


def test_an_unknown_norm_is_refused_with_the_nearest(unchecked: None) -> None:
    with pytest.raises(InputError, match="'linf': write 'Linf'"):
        Threat("linf", 0.3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'L3': use Linf, L2, L1, L0 or Patch"):
        Threat("L3", 0.3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "bounds",
    [
        (1.0, 0.0),
        (math.nan, 1.0),
        (0.0, math.nan),
        (torch.ones(3), torch.tensor([2.0, 0.5, 1.0])),
        (torch.tensor([0.0, math.nan]), torch.ones(2)),
        0.5,
        (0.0, 0.5, 1.0),
    ],
)
def test_bounds_that_contain_nothing_are_refused(bounds: object, unchecked: None) -> None:
    with pytest.raises(InputError, match="bounds"):
        Threat("Linf", 0.3, bounds)  # type: ignore[arg-type]


def test_bounds_per_feature_come_as_tensors_or_arrays_and_must_fit(unchecked: None) -> None:
    low, high = np.zeros(29), np.linspace(0.5, 2, 29)
    threat = Threat("Linf", 1.0, (low, high))  # type: ignore[arg-type]
    x = torch.zeros(2, 29)
    assert torch.equal(threat.project(x, x + 9)[0], torch.as_tensor(high).float().clamp(max=1))
    assert threat.limits(x)[1].dtype == torch.float32
    with pytest.raises(InputError, match=r"\(29,\) do not fit examples of shape \(28,\)"):
        threat.project(torch.zeros(2, 28), torch.zeros(2, 28))
    with pytest.raises(InputError, match="do not fit"):
        threat.limits(torch.zeros(2))
    per_channel = Threat("L2", 1.0, (torch.zeros(3, 1, 1), torch.ones(3, 1, 1)))
    images = torch.zeros(2, 3, 4, 4)
    assert per_channel.contains(images, per_channel.project(images, images + 3)).all()


def test_limits_without_a_box_are_infinite() -> None:
    low, high = Threat("L2", 1.0, None).limits(torch.zeros(2, 3))
    assert low == -math.inf and high == math.inf


# What APGD, FAB and Square ask of it


@pytest.mark.slow
@cases
def test_the_move_to_a_plane_is_exact_and_the_shortest(
    seed: int, norm: Norm, box: str, shape: tuple[int, ...], eps: float, scale: float
) -> None:
    """Certified by linear maximisation: within a ball of the move's own length, nothing gains more."""
    threat, x, slope = make_case(seed, norm, box, shape, eps, scale, torch.float64)
    slope = slope / scale
    draw = torch.Generator().manual_seed(seed)
    sign = torch.rand(7, generator=draw, dtype=torch.float64).sub(0.3).sign()
    gain = sign * 3 * torch.rand(7, generator=draw, dtype=torch.float64)
    move = threat.to_plane(x, slope, gain)
    low, high = threat.limits(x)
    rounding = 1e-12 * (1 + x.abs())
    assert ((x + move >= low - rounding) & (x + move <= high + rounding)).all()
    gained = (slope * move).reshape(7, -1).sum(1)
    for i in range(7):
        length = float(Threat(norm, 1.0, None).distance(torch.zeros_like(move), move)[i])
        ball = replace(threat, eps=length)
        end = ball.maximise_linear(x[[i]], sign[i] * slope[[i]])
        most = float((sign[i] * slope[[i]] * (end - x[[i]])).sum())
        assert float(sign[i] * gained[i]) == pytest.approx(most, rel=1e-7, abs=1e-9)
        far = replace(threat, eps=1e6).maximise_linear(x[[i]], sign[i] * slope[[i]])
        reachable = float((sign[i] * slope[[i]] * (far - x[[i]])).sum()) >= abs(float(gain[i]))
        if reachable:
            assert float(gained[i]) == pytest.approx(float(gain[i]), rel=1e-7, abs=1e-9)
        else:
            assert float(sign[i] * gained[i]) < abs(float(gain[i])) + 1e-9


@pytest.mark.slow
@cases
def test_points_far_from_x_are_inside_and_far(
    seed: int, norm: Norm, box: str, shape: tuple[int, ...], eps: float, scale: float
) -> None:
    threat, x, vector = make_case(seed, norm, box, shape, eps, scale, torch.float64)
    scattered, extended = threat.scatter(x, Noise.of(seed, torch.arange(7))), threat.extend(x, vector)
    assert threat.contains(x, scattered).all() and threat.contains(x, extended).all()
    free = Threat(norm, eps, None)
    there = vector.reshape(7, -1).abs().sum(1) > 0
    torch.testing.assert_close(
        free.distance(x, free.extend(x, vector))[there],
        torch.full((7,), eps, dtype=torch.float64)[there],
        rtol=1e-6,
        atol=1e-9,
    )
    assert torch.equal(threat.boxed(scattered), scattered)


def test_sparse_steps_go_to_the_largest_slopes_with_room() -> None:
    threat = Threat("L1", 2.0)
    z = torch.tensor([[0.5, 1.0, 0.5, 0.0, 0.5, 0.5]])
    gradient = torch.tensor([[4.0, 9.0, -3.0, -8.0, 0.5, 0.0]])
    for count, share in [
        (1.0, [1, 1, 0, -1, 0, 0]),
        (2.0, [0.5, 0.5, -0.5, -0.5, 0, 0]),
        (2.9, [0.5, 0.5, -0.5, -0.5, 0, 0]),
    ]:
        step = threat.spread_ascent(z, gradient, torch.tensor([count]))
        torch.testing.assert_close(step, torch.tensor([share], dtype=torch.float32))
    third = 1 / 3
    everything = torch.tensor([[third, third, -third, -third, third, 0.0]])
    torch.testing.assert_close(threat.spread_ascent(z, gradient, torch.tensor([6.0])), everything)
    assert torch.equal(threat.spread_ascent(z, 0 * gradient, torch.tensor([2.0])), torch.zeros(1, 6))


@pytest.mark.parametrize("norm", NORMS)
def test_an_even_share_in_each_feature_reaches_the_sphere(norm: Norm) -> None:
    threat, x = Threat(norm, 0.7, None), torch.zeros(3, 2, 5, dtype=torch.float64)
    torch.testing.assert_close(threat.distance(x, x + threat.even_share(x)), torch.full((3,), 0.7, dtype=x.dtype))
