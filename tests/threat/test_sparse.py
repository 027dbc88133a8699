"""The L0 ball cut by the box: brute force over all sets of features, properties, and what does not exist there."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unperturbed.errors import InputError
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Bounds


def case(
    seed: int, shape: tuple[int, ...], eps: float, scale: float, per_feature: bool
) -> tuple[Threat, Tensor, Tensor]:
    """Return a threat, inputs in the box (many at its bounds), and vectors with zeros and ties."""
    draw = torch.Generator().manual_seed(seed)
    bounds: Bounds = (0.0, 1.0)
    if per_feature:
        low = -torch.rand(shape, generator=draw, dtype=torch.float64)
        bounds = (low, low + 2 * torch.rand(shape, generator=draw, dtype=torch.float64) * (low < -0.2))
    threat = Threat("L0", eps, bounds)
    low_limit, high = threat.limits(torch.zeros((6, *shape), dtype=torch.float64))
    place = torch.rand((6, *shape), generator=draw, dtype=torch.float64)
    x = low_limit + (1.4 * place - 0.2).clamp(0, 1) * (high - low_limit)
    vector = scale * torch.randn(x.shape, generator=draw, dtype=torch.float64)
    vector = torch.where(torch.rand(x.shape, generator=draw) < 0.3, scale * vector.sign(), vector)
    return threat, x, torch.where(torch.rand(x.shape, generator=draw) < 0.2, 0.0, vector)


cases = given(
    seed=st.integers(0, 2**31),
    shape=st.sampled_from([(1,), (5,), (2, 3)]),
    eps=st.sampled_from([0.0, 1.0, 2.0, 2.5, 4.0, 100.0]),
    scale=st.sampled_from([1e-3, 0.3, 1.0, 50.0]),
    per_feature=st.booleans(),
)


def sets_of(threat: Threat, x: Tensor) -> list[Tensor]:
    """Return a mask for every set of features that may change together."""
    d = x.shape[1:].numel()
    count = min(math.floor(threat.eps), d)
    masks = []
    for chosen in itertools.combinations(range(d), count):
        mask = torch.zeros(d, dtype=torch.bool)
        mask[list(chosen)] = True
        masks.append(mask.view(x.shape[1:]))
    return masks


@cases
@settings(max_examples=80, deadline=None)
def test_projection_is_the_nearest_point_of_all_sets_of_features(
    seed: int, shape: tuple[int, ...], eps: float, scale: float, per_feature: bool
) -> None:
    threat, x, step = case(seed, shape, eps, scale, per_feature)
    z = x + step
    found = (threat.project(x, z) - z).square().flatten(1).sum(1)
    boxed = threat.boxed(z)
    tried = torch.stack([(torch.where(mask, boxed, x) - z).square().flatten(1).sum(1) for mask in sets_of(threat, x)])
    torch.testing.assert_close(found, tried.amin(0), rtol=1e-12, atol=1e-15)


@cases
@settings(max_examples=80, deadline=None)
def test_the_linear_maximum_is_the_largest_of_all_sets_of_features(
    seed: int, shape: tuple[int, ...], eps: float, scale: float, per_feature: bool
) -> None:
    threat, x, gradient = case(seed, shape, eps, scale, per_feature)
    best = threat.maximise_linear(x, gradient)
    low, high = threat.limits(x)
    ends = torch.where(gradient > 0, high, low)
    gains = torch.stack(
        [(gradient * (torch.where(mask, ends, x) - x)).flatten(1).sum(1) for mask in sets_of(threat, x)]
    )
    torch.testing.assert_close((gradient * (best - x)).flatten(1).sum(1), gains.amax(0), rtol=1e-12, atol=1e-15)
    assert bool(threat.contains(x, best).all())


@pytest.mark.slow
@cases
@settings(max_examples=80, deadline=None)
def test_points_are_inside_in_float32_and_projection_leaves_them(
    seed: int, shape: tuple[int, ...], eps: float, scale: float, per_feature: bool
) -> None:
    threat, x, step = case(seed, shape, eps, scale, per_feature)
    x, step = threat.boxed(x.float()), step.float()
    noise = Noise.of(seed, torch.arange(len(x)))
    for z in (threat.project(x, x + step), threat.sample(x, noise), threat.scatter(x, noise)):
        assert z.dtype == torch.float32 and bool(threat.contains(x, z).all())
        assert bool(((z != x).flatten(1).sum(1) <= math.floor(eps)).all())
        assert torch.equal(threat.project(x, z), z)


def test_a_projection_far_outside_of_the_box_keeps_the_features_that_gain_most() -> None:
    """At x = 0.9 a move of +5 ends at 1 and gains little; one of -0.5 from 0.6 is kept whole."""
    x, z = torch.tensor([[0.9, 0.6, 0.3]]), torch.tensor([[5.9, 0.1, 0.31]])
    assert torch.equal(Threat("L0", 1).project(x, z), torch.tensor([[1.0, 0.6, 0.3]])), "0.1 * (5 + 4.9) is most"
    z = torch.tensor([[2.0, 0.1, 0.31]])
    assert torch.equal(Threat("L0", 1).project(x, z), torch.tensor([[0.9, 0.1, 0.3]])), "0.1 * (1.1 + 1) is less"
    assert torch.equal(Threat("L0", 2).project(x, z), torch.tensor([[1.0, 0.1, 0.3]]))


def test_what_is_not_finite_is_noticed() -> None:
    x, threat = torch.full((3, 3), 0.5), Threat("L0", 1)
    z = torch.tensor([[torch.inf, 0.4, 0.5], [-torch.inf, torch.inf, 0.5], [torch.nan, torch.nan, 0.1]])
    p = threat.project(x, z)
    assert p[0].tolist() == [1.0, 0.5, 0.5] and int((p[1] != x[1]).sum()) == 1 and bool(p[1].isfinite().all())
    assert bool(p[2].isnan().any()) and not bool(threat.contains(x, p)[2])


def test_distance_counts_changed_features_and_each_channel_is_one() -> None:
    x = torch.rand(2, 3, 4, 4)
    z = x.clone()
    z[0, :, 1, 2] += 1e-6
    z[1, 0, 0, 0] = 0
    threat = Threat("L0", 2)
    assert threat.distance(x, z).tolist() == [3, 1] and threat.contains(x, z).tolist() == [False, True]
    assert Threat("L0", 3).contains(x, z).all()


def test_random_points_are_keyed_by_the_example_and_spread_over_features_and_box() -> None:
    threat, n, d = Threat("L0", 3, (-1.0, 3.0)), 4000, 8
    x, noise = torch.full((n, d), 0.25), Noise.of(5, torch.arange(n))
    z = threat.sample(x, noise)
    changed = z != x
    assert bool((changed.sum(1) == 3).all())
    share = changed.double().mean(0)
    assert bool(((share - 3 / 8).abs() < 5 * (3 / 8 * 5 / 8 / n) ** 0.5).all())
    values = z[changed]
    assert abs(float(values.mean()) - 1) < 0.1 and -1 <= float(values.min()) < -0.95 < 2.95 < float(values.max()) <= 3
    turned = torch.randperm(n)[:100]
    assert torch.equal(threat.sample(x[turned], noise.rows(turned)), z[turned])
    other = threat.sample(x, Noise.of(6, torch.arange(n)))
    assert not torch.equal(other, z)


@pytest.mark.parametrize(("text", "eps"), [("L0:20", 20.0), ("l0:1", 1.0), ("0:3", 3.0), ("L0:0", 0.0)])
def test_the_text_of_a_threat_is_read_and_written(text: str, eps: float) -> None:
    threat = Threat.parse(text)
    assert (threat.norm, threat.eps) == ("L0", eps) and str(threat) == f"L0:{eps:g}"


def test_a_share_of_a_feature_is_refused() -> None:
    with pytest.raises(InputError, match="eps is 0.0313725, but in L0 it counts changed features.*L0:20"):
        Threat.parse("L0:8/255")


@pytest.mark.parametrize(
    "call",
    [
        lambda t, x: t.dual_norm(x),
        lambda t, x: t.longest(x),
        lambda t, x: t.distortion(x, x),
        lambda t, x: t.steepest_ascent(x, x),
        lambda t, x: t.to_plane(x, x, x[:, 0]),
        lambda t, x: t.extend(x, x),
    ],
)
def test_what_does_not_exist_is_refused(call: Callable[[Threat, Tensor], object]) -> None:
    with pytest.raises(InputError, match="is not defined in L0, whose ball is not convex"):
        call(Threat("L0", 2), torch.rand(2, 3))


@pytest.mark.parametrize("bounds", [None, (0.0, math.inf), (torch.full((3,), -math.inf), torch.ones(3))])
def test_without_bounds_a_feature_could_take_any_value(bounds: Bounds) -> None:
    threat, x = Threat("L0", 2, bounds), torch.rand(2, 3)
    for call in (lambda: threat.sample(x, Noise.of(0, torch.arange(2))), lambda: threat.maximise_linear(x, x)):
        with pytest.raises(InputError, match="L0 needs bounds"):
            call()
