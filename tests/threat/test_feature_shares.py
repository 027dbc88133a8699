"""Shares of eps: a ball in other units, and features that never change."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import unperturbed as un
from unperturbed.attacks.fab import FAB
from unperturbed.attacks.gradient import Suite
from unperturbed.attacks.square import Square
from unperturbed.errors import InputError
from unperturbed.noise import Noise
from unperturbed.specs.spec import build, describe
from unperturbed.threat import Threat
from unperturbed.threat.radii import project_within
from unperturbed.types import Norm

BALLS: tuple[Norm, ...] = ("Linf", "L2", "L1")


def draw_case(seed: int, n: int = 6, d: int = 7) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return inputs in [0, 1], other points, gradients with zeros, and a mask of free features."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.rand(n, d, generator=draw, dtype=torch.float64).mul(1.4).sub(0.2).clamp(0, 1)
    z = x + torch.randn(n, d, generator=draw, dtype=torch.float64)
    gradient = torch.randn(n, d, generator=draw, dtype=torch.float64)
    gradient = torch.where(torch.rand(n, d, generator=draw) < 0.2, 0.0, gradient)
    free = torch.rand(d, generator=draw) < 0.6
    free[int(torch.randint(d, (), generator=draw))] = True
    return x, z, gradient, free


@pytest.mark.slow
@given(seed=st.integers(0, 2**31), eps=st.sampled_from([0.0, 0.05, 0.4, 3.0]))
def test_linf_with_shares_is_the_plain_ball_in_other_units(seed: int, eps: float) -> None:
    x, z, gradient, _ = draw_case(seed)
    share = torch.rand(7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 5 + 0.01
    threat = Threat("Linf", eps, (0.0, 1.0), tuple(share.tolist()))
    plain = Threat(
        "Linf", eps, (torch.zeros(7, dtype=torch.float64) / share, torch.ones(7, dtype=torch.float64) / share)
    )
    u, v, slope = x / share, z / share, gradient * share
    close = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(threat.project(x, z), share * plain.project(u, v), **close)
    torch.testing.assert_close(threat.maximise_linear(x, gradient), share * plain.maximise_linear(u, slope), **close)
    torch.testing.assert_close(threat.steepest_ascent(x, gradient), share * plain.steepest_ascent(u, slope), **close)
    torch.testing.assert_close(threat.distance(x, z), plain.distance(u, v), **close)
    torch.testing.assert_close(threat.dual_norm(gradient), plain.dual_norm(slope), **close)
    torch.testing.assert_close(threat.extend(x, z - x), share * plain.extend(u, v - u), **close)
    gain = torch.linspace(-1, 1, len(x), dtype=torch.float64)
    torch.testing.assert_close(threat.to_plane(x, gradient, gain), share * plain.to_plane(u, slope, gain), **close)
    radius = torch.rand(len(x), dtype=torch.float64)
    within = share * project_within(plain, u, v, radius)
    torch.testing.assert_close(project_within(threat, x, z, radius), within, **close)
    noise = Noise.of(seed, torch.arange(len(x)))
    torch.testing.assert_close(threat.sample(x, noise), share * plain.sample(u, noise), **close)


@pytest.mark.slow
@given(seed=st.integers(0, 2**31), norm=st.sampled_from(BALLS), eps=st.sampled_from([0.0, 0.05, 0.4, 3.0]))
def test_with_features_that_never_change_the_ball_is_that_of_the_others(seed: int, norm: Norm, eps: float) -> None:
    x, z, gradient, free = draw_case(seed)
    threat, plain = Threat(norm, eps, (0.0, 1.0), tuple(free.double().tolist())), Threat(norm, eps)

    def check(result: Tensor, expected: Tensor, fixed: Tensor) -> None:
        torch.testing.assert_close(result[:, free], expected, rtol=1e-9, atol=1e-9)
        assert torch.equal(result[:, ~free], fixed[:, ~free])

    u, v, slope, none = x[:, free], z[:, free], gradient[:, free], torch.zeros_like(x)
    check(threat.project(x, z), plain.project(u, v), x)
    check(threat.maximise_linear(x, gradient), plain.maximise_linear(u, slope), x)
    check(threat.extend(x, z - x), plain.extend(u, v - u), x)
    check(threat.steepest_ascent(x, gradient), plain.steepest_ascent(u, slope), none)
    check(
        threat.spread_ascent(x, gradient, torch.full((6,), 2.0)),
        plain.spread_ascent(u, slope, torch.full((6,), 2.0)),
        none,
    )
    gain = torch.linspace(-1, 1, len(x), dtype=torch.float64)
    check(threat.to_plane(x, gradient, gain), plain.to_plane(u, slope, gain), none)
    radius = torch.rand(len(x), dtype=torch.float64)
    check(project_within(threat, x, z, radius), project_within(plain, u, v, radius), x)
    torch.testing.assert_close(threat.dual_norm(gradient), plain.dual_norm(slope), rtol=1e-9, atol=1e-9)
    assert threat.even_share(x) == pytest.approx(plain.even_share(u)) and threat.longest(x) == pytest.approx(
        plain.longest(u)
    )
    moved = torch.where(free, z, x)
    torch.testing.assert_close(threat.distance(x, moved), plain.distance(u, v), rtol=1e-9, atol=1e-9)
    if not bool(free.all()):
        assert bool(threat.distance(x, z).isinf().all()) and not bool(threat.contains(x, z).any())


@given(
    seed=st.integers(0, 2**31),
    norm=st.sampled_from((*BALLS, "L0")),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_every_point_that_is_made_lies_in_the_set(seed: int, norm: Norm, dtype: torch.dtype) -> None:
    x, z, gradient, free = (part.to(dtype) if part.is_floating_point() else part for part in draw_case(seed))
    draw = torch.Generator().manual_seed(seed)
    size = 10 ** (4 * torch.rand(7, generator=draw) - 3) if norm == "Linf" else torch.ones(7)
    threat = Threat(norm, 2.0 if norm == "L0" else 0.3, (0.0, 1.0), tuple((free * size).tolist()))
    noise = Noise.of(seed, torch.arange(len(x)))
    points = [
        threat.project(x, z),
        threat.maximise_linear(x, gradient),
        threat.sample(x, noise),
        threat.scatter(x, noise),
    ]
    for point in points if norm == "L0" else (*points, threat.extend(x, z - x)):
        assert bool(threat.contains(x, point).all()) and torch.equal(threat.fixed(x, point), point)


def test_a_large_feature_leaves_the_others_no_slack() -> None:
    threat = Threat("Linf", 0.1, None, (1.0, 1e6))
    x = torch.tensor([[0.0, 1e6]])
    points = torch.tensor([[0.1, 1.1e6], [0.1001, 1e6], [0.0, 1.1001e6]])
    assert threat.contains(x.expand(3, 2), points).tolist() == [True, False, False]
    torch.testing.assert_close(threat.rounding(x), torch.tensor([1e-7]))


@pytest.mark.parametrize("norm", ["L2", "L1"])
def test_samples_fill_the_ball_of_the_free_features(norm: Norm) -> None:
    """The share of points within half of the radius is 2^-k for k free features."""
    threat = Threat(norm, 1.0, None, (1.0, 0.0, 1.0, 0.0, 1.0))
    x = torch.zeros(4000, 5, dtype=torch.float64)
    inside = float((threat.distance(x, threat.sample(x, Noise.of(0, torch.arange(4000)))) < 0.5).double().mean())
    assert inside == pytest.approx(1 / 8, abs=0.02)


class Linear(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        score = x @ self.weight
        return torch.stack([score, -score], 1)


def linear_case(n: int = 60) -> tuple[Linear, tuple[Tensor, Tensor], Tensor]:
    """Return a linear network, examples that it classifies correctly, and their scores."""
    draw = torch.Generator().manual_seed(3)
    model, x = Linear(torch.randn(8, generator=draw)), torch.randn(n, 8, generator=draw)
    score = (x @ model.weight).detach()
    return model, (x, (score < 0).long()), score


SHARES = {"Linf": (0.5, 0.0, 20.0, 1.0, 1.0, 0.0, 0.01, 2.0)} | dict.fromkeys(("L2", "L1"), (1.0, 0, 1, 1, 0, 1, 1, 1))


def case_in(norm: Norm, n: int = 60) -> tuple[Linear, tuple[Tensor, Tensor], Threat, Tensor]:
    """Return a linear network, its examples, the ball of radius 1 with shares, and the distances of the boundary."""
    model, data, score = linear_case(n)
    unit = Threat(norm, 1.0, None, SHARES[norm])
    return model, data, unit, score.abs() / unit.dual_norm(model.weight.detach()[None])


@pytest.mark.slow
@pytest.mark.parametrize("norm", BALLS)
def test_suites_break_exactly_the_examples_of_a_linear_network_that_can_be_broken(norm: Norm) -> None:
    model, data, unit, margins = case_in(norm)
    threat = replace(unit, eps=float(margins.median()))
    outcome = un.evaluate(model, data, threat, "fast", gate=False)
    survived = torch.tensor([verdict == "survived" for verdict in outcome.examples["verdict"]])
    assert torch.equal(survived, margins > threat.eps)


@pytest.mark.slow
@pytest.mark.parametrize("norm", BALLS)
def test_a_random_search_keeps_fixed_features_and_uses_the_shares(norm: Norm) -> None:
    """In Linf all corners are reached: with shares of 20 and 0.01, a plain step of eps would break next to nothing."""
    model, data, unit, margins = case_in(norm)
    threat = replace(unit, eps=2 * float(margins.median()))
    square = Suite("square", (Square(queries=300),), "a short random search")
    outcome = un.evaluate(model, data, threat, square)
    broken = torch.tensor([verdict == "broken" for verdict in outcome.examples["verdict"]])
    assert not bool((broken & (margins > threat.eps)).any()) and int(broken.sum()) >= 40


@pytest.mark.slow
@pytest.mark.parametrize("norm", BALLS)
def test_the_nearest_points_of_a_linear_network_lie_at_its_margins_over_the_dual_norm(norm: Norm) -> None:
    model, data, unit, margins = case_in(norm, 12)
    fab = Suite("fab", (FAB(),), "one")
    distances = torch.tensor(un.minimum_norm(model, data, replace(unit, eps=2.0), fab).examples["distance"])
    torch.testing.assert_close(distances.double(), margins.double(), rtol=2e-3, atol=1e-5)


@pytest.mark.slow
def test_in_l0_only_free_features_count() -> None:
    model, (x, y), score = linear_case(12)
    x = x.sigmoid()
    threat = Threat("L0", 1.0, (0.0, 1.0), (1.0, 0, 1, 1, 0, 1, 1, 1))
    score = (x @ model.weight).detach()
    y = (score < 0).long()
    gain = torch.where((score[:, None] > 0) == (model.weight > 0), x, 1 - x) * model.weight.abs()
    gain = torch.where(torch.tensor(threat.shares) > 0, gain, 0.0).detach()
    truth = score.abs() > gain.amax(1)
    outcome = un.evaluate(model, (x, y), threat, "sparse")
    survived = torch.tensor([verdict == "survived" for verdict in outcome.examples["verdict"]])
    assert torch.equal(survived, truth) and 0 < int(truth.sum()) < len(truth)


def test_an_evaluation_with_other_shares_is_another_one(tmp_path: Path) -> None:
    model, data, _ = linear_case(10)
    first = Threat("Linf", 0.1, None, SHARES["Linf"])
    un.evaluate(model, data, first, "apgd-ce", out=tmp_path)
    with pytest.raises(InputError, match="threat"):
        un.evaluate(model, data, replace(first, shares=None), "apgd-ce", out=tmp_path)


@settings(max_examples=30)
@given(shares=st.lists(st.floats(0, 1e6), min_size=1, max_size=9).filter(any), eps=st.floats(1e-3, 10))
def test_text_and_description_read_back(shares: list[float], eps: float) -> None:
    threat = Threat("Linf", eps, (0.0, 1.0), tuple(shares))
    for again in (Threat.parse(threat.text), Threat.parse(str(threat)), build(describe(threat), Threat)):
        assert (again.norm, again.eps, again.shares) == (threat.norm, threat.eps, threat.shares)


@pytest.mark.parametrize(
    ("norm", "shares", "message"),
    [
        ("Linf", (1.0, -1.0), "0 or more"),
        ("Linf", (1.0, float("nan")), "0 or more"),
        ("Linf", "all", "0 or more"),
        ("Linf", (0.0, 0.0), "nothing may change"),
        ("L2", (1.0, 0.5), "use Linf"),
        ("Patch", (1.0, 0.0), "patch"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_wrong_shares_are_refused(norm: Norm, shares: tuple[float, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Threat(norm, 1.0, (0.0, 1.0), shares)


@pytest.mark.usefixtures("unchecked")
def test_shares_of_1_are_none_and_others_must_fit_the_examples() -> None:
    assert Threat("L1", 1.0, None, (1.0, 1.0)).shares is None
    with pytest.raises(InputError, match=r"shares for 2 features, and an example has the shape \(3,\)"):
        Threat("Linf", 1.0, None, (1.0, 0.0)).project(torch.zeros(1, 3), torch.ones(1, 3))
    assert Threat("Linf", 1.0, None, np.array([1.0, 0.0])).shares == (1.0, 0.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("what", ["certify", "quantize"])
def test_what_has_no_form_with_shares_is_refused(what: str) -> None:
    model, data, _ = linear_case(5)
    threat = Threat("Linf", 0.1, (-9.0, 9.0), SHARES["Linf"])
    with pytest.raises(InputError, match="their own eps"):
        if what == "certify":
            un.certify(model, data, threat, 0.1)
        else:
            from unperturbed.evaluation.grid import budget

            budget(threat)
