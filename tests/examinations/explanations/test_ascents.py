"""Synthesised inputs and counterfactuals: optimal on linear networks, always inside their set."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import NonlinearConstraint, minimize
from torch import nn

from support.examples import NORMS, make_batch, network, noise_for
from unperturbed.errors import InputError
from unperturbed.examinations.explanations.ascents import (
    large_threat,
    log_probability,
    sparse_counterfactual,
    synthesise,
)
from unperturbed.maximise.frank_wolfe import FrankWolfe
from unperturbed.maximise.pgd import PGD
from unperturbed.threat import Threat
from unperturbed.threat.lp_ball import LpBall
from unperturbed.types import Norm

WIDE = make_batch(5, torch.float64)


@pytest.mark.parametrize("maximiser", [FrankWolfe(steps=5), PGD(steps=60, step_size=1.0)], ids=["frank-wolfe", "pgd"])
@pytest.mark.parametrize("norm", NORMS)
def test_synthesis_reaches_the_optimum_of_a_linear_network(norm: Norm, maximiser: FrankWolfe | PGD) -> None:
    linear = nn.Linear(32, 2).double()
    model, target = nn.Sequential(nn.Flatten(), linear), torch.ones(5, dtype=torch.int64)
    threat = Threat(norm, {"Linf": 0.2, "L2": 0.6, "L1": 1.5}[norm])
    z = synthesise(model, WIDE.x, target, threat, noise_for(WIDE), maximiser)
    w = (linear.weight[1] - linear.weight[0]).detach().view(1, 2, 4, 4).expand_as(WIDE.x)
    best = threat.maximise_linear(WIDE.x, w)
    assert threat.contains(WIDE.x, z).all()
    torch.testing.assert_close((w * z).flatten(1).sum(1), (w * best).flatten(1).sum(1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_features_that_never_change_stay_in_explanations(norm: Norm) -> None:
    """Here those with odd numbers; the others are at the optimum of a linear network."""
    x, target = torch.rand(4, 6).double(), torch.ones(4, dtype=torch.int64)
    model, frozen = nn.Linear(6, 2).double(), torch.arange(6) % 2 == 1
    threat = Threat("Linf", 0.1, shares=(3.0, 0.0, 1.0, 0.0, 0.5, 0.0))
    large = large_threat(x, threat, norm)
    assert large.eps == large_threat(x[:, :3], Threat("Linf", 0.1), norm).eps
    ball = LpBall(1.5, 0.5, threat.bounds, large.shares)
    by_gradient = sparse_counterfactual(model, x, target, ball)
    for z in (synthesise(model, x, target, large, noise_for(WIDE).rows(torch.arange(4))), by_gradient):
        assert z[:, frozen].equal(x[:, frozen]) and not z.equal(x)
    assert ball.contains(x, by_gradient).all() and large.contains(x, z).shape == (4,)
    moved = by_gradient.clone()
    moved[:, 1] = 1 - moved[:, 1]
    assert not ball.contains(x, moved).any()


def test_log_probability_does_not_underflow() -> None:
    logits = torch.tensor([[1000.0, 0.0, -500.0]])
    assert float(log_probability(logits, torch.tensor([2]))) == -1500.0


@pytest.mark.parametrize("norm", NORMS)
def test_a_large_threat_set_scales_with_the_box(norm: Norm) -> None:
    one, ten = (large_threat(WIDE.x, Threat("Linf", 0.1, (0.0, high)), norm) for high in (1.0, 10.0))
    assert one.norm == norm and ten.eps == pytest.approx(10 * one.eps)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), radius=st.floats(0.1, 2.0))
def test_the_oracle_of_the_ball_is_the_answer_of_a_convex_solver(seed: int, radius: float) -> None:
    draw = np.random.default_rng(seed)
    x, g = draw.uniform(size=6), draw.normal(size=6)
    found = LpBall(1.5, radius).maximise_linear(torch.from_numpy(x)[None], torch.from_numpy(g)[None])[0].numpy()
    assert found.min() >= 0 and found.max() <= 1
    assert (np.abs(found - x) ** 1.5).sum() ** (1 / 1.5) <= radius * (1 + 1e-9)
    # |d_i| as variables keep the problem smooth: the best d_i has the sign of g_i
    room = np.where(g > 0, 1 - x, x)
    solved = minimize(
        lambda d: -(np.abs(g) * d).sum(),
        np.minimum(room, radius / 12) * 0.9,
        jac=lambda d: -np.abs(g),
        method="SLSQP",
        bounds=[(0, each) for each in room],
        constraints=NonlinearConstraint(
            lambda d: (np.maximum(d, 0) ** 1.5).sum() - radius**1.5,
            -np.inf,
            0,
            jac=lambda d: 1.5 * np.sqrt(np.maximum(d, 0)),
        ),
        options={"ftol": 1e-14, "maxiter": 500},
    )
    # a solver that fails far from the optimum does not agree
    assert (g * (found - x)).sum() == pytest.approx(-solved.fun, abs=1e-6)


def test_the_oracle_stays_where_the_gradient_is_zero_and_fills_the_box_where_the_radius_allows() -> None:
    x = WIDE.x
    ball = LpBall(1.5, 100.0)
    assert torch.equal(ball.maximise_linear(x, torch.zeros_like(x)), x)
    assert torch.equal(ball.maximise_linear(x, torch.ones_like(x)), torch.ones_like(x))
    free = LpBall(1.5, 0.5, None)
    z = free.maximise_linear(x, torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(free.distance(x, z), torch.full((5,), 0.5, dtype=torch.float64))


@pytest.mark.parametrize(("p", "radius"), [(1.0, 1.0), (float("inf"), 1.0), (1.5, 0.0), (1.5, float("nan"))])
def test_a_ball_that_is_none_is_refused(p: float, radius: float) -> None:
    with pytest.raises(InputError, match="but must be"):
        LpBall(p, radius)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_counterfactual_lies_in_the_ball_and_is_no_less_likely(dtype: torch.dtype) -> None:
    batch, model = make_batch(5, dtype), network("plain", dtype).eval()
    target, ball = (batch.y + 1) % 3, LpBall(1.5, 1.0)
    z = sparse_counterfactual(model, batch.x, target, ball, steps=20)
    assert ball.contains(batch.x, z).all()
    assert (log_probability(model(z), target) >= log_probability(model(batch.x), target)).all()
