"""The quadratic model against its matrices, and Frank-Wolfe on it against the maximum."""

import pytest
import torch
from torch import Tensor

from support.calculus import random_matrix
from support.examples import NORMS
from unperturbed.curvature.products import dot
from unperturbed.curvature.quadratic import Quadratic
from unperturbed.maximise.frank_wolfe import FrankWolfe
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Inputs, Norm, PerExample, Rows

N = 6
ROWS = torch.arange(N)
NOISE = Noise.of(0, ROWS)
EPS: dict[Norm, float] = {"Linf": 0.3, "L2": 0.6, "L1": 0.9}


def problem(d: int, sign: str, seed: int = 0) -> tuple[Quadratic, Tensor]:
    """Return a quadratic model around inputs in [0, 1]^d, and its matrices, one an example."""
    draw = torch.Generator().manual_seed(seed)
    matrices = torch.stack([3 * random_matrix(d, seed + k, sign) for k in range(N)])
    x = (torch.rand((N, d), generator=draw, dtype=torch.float64) * 1.4 - 0.2).clamp(0, 1)
    g = 0.5 * torch.randn((N, d), generator=draw, dtype=torch.float64)

    def product(v: Inputs, rows: Rows) -> Inputs:
        return torch.einsum("nij,nj->ni", matrices[rows], v)

    return Quadratic(x, g, product), matrices


def certificate(quadratic: Quadratic, threat: Threat, z: Inputs) -> PerExample:
    """Return the Frank-Wolfe gap, max_s <s - z, gradient at z>: on a concave Q it bounds what is missing."""
    uphill = quadratic.gradient(z, ROWS)
    return dot(threat.maximise_linear(quadratic.x, uphill) - z, uphill)


def test_value_and_gradient_are_those_of_the_polynomial() -> None:
    """For any examples in any order: g and H follow the rows."""
    quadratic, matrices = problem(5, "any")
    rows = torch.tensor([4, 1, 1])
    v = torch.randn((3, 5), generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    for k, row in enumerate(rows.tolist()):
        expected = quadratic.gradient_at_x[row] @ v[k] + v[k] @ matrices[row] @ v[k] / 2
        torch.testing.assert_close(quadratic(quadratic.x[rows] + v, rows)[k], expected)
    z = (quadratic.x[rows] + v).requires_grad_()
    (slope,) = torch.autograd.grad(quadratic(z, rows).sum(), z)
    torch.testing.assert_close(quadratic.gradient(z.detach(), rows), slope)
    assert not quadratic(quadratic.x, ROWS).any()


@pytest.mark.parametrize("box", [True, False])
@pytest.mark.parametrize("norm", NORMS)
def test_on_concave_quadratics_frank_wolfe_reaches_the_maximum_within_its_own_gap(norm: Norm, box: bool) -> None:
    """And within 2 C / (k + 2) of it (Jaggi 2013, theorem 1), C the largest curvature times the diameter squared."""
    quadratic, matrices = problem(6, "negative")
    threat = Threat(norm, EPS[norm], (0.0, 1.0) if box else None)
    sharpest, x = torch.linalg.eigvalsh(matrices).abs().amax(1), quadratic.x
    best, ahead, t = x, x, 1.0
    for _ in range(120):  # projected gradient with steps of 1 / L and Nesterov's momentum
        before, t_before = best, t
        best = threat.project(x, ahead + quadratic.gradient(ahead, ROWS) / sharpest[:, None])
        t = (1 + (1 + 4 * t**2) ** 0.5) / 2
        ahead = best + (t_before - 1) / t * (best - before)
    maximum, doubt = quadratic(best, ROWS), certificate(quadratic, threat, best)
    assert (doubt < 1e-4).all(), "this is the maximum"
    reach = EPS[norm] * (6**0.5 if norm == "Linf" else 1.0)
    for steps in (1, 5, 150):
        z = FrankWolfe(steps)(quadratic, x, threat, NOISE)
        missing, gap = maximum - quadratic(z, ROWS), certificate(quadratic, threat, z)
        assert (missing >= -doubt - 1e-9).all() and (missing <= gap + 1e-9).all()
        assert (missing <= 2 * sharpest * (2 * reach) ** 2 / (steps + 2)).all()
    assert (missing < 0.02).all()


@pytest.mark.parametrize("box", [True, False])
@pytest.mark.parametrize("norm", NORMS)
def test_on_indefinite_quadratics_frank_wolfe_stays_below_the_maximum_and_becomes_stationary(
    norm: Norm, box: bool
) -> None:
    """The maximum by brute force over the plane, in rings of the ball's shape and twice its size, projected."""
    quadratic, matrices = problem(2, "any", seed=20)
    ends = torch.linalg.eigvalsh(matrices)
    assert (ends[:, 0] < 0).any() and (ends[:, 1] > 0).any()
    threat = Threat(norm, EPS[norm], (0.0, 1.0) if box else None)
    angles = torch.arange(720, dtype=torch.float64) * torch.pi / 360
    ring = torch.stack([angles.cos(), angles.sin()], 1)
    ring = ring / threat.distance(torch.zeros_like(ring), ring)[:, None]
    disc = torch.cat([radius * ring for radius in torch.linspace(0, 2 * threat.eps, 81, dtype=torch.float64)])
    maximum = []
    for k in range(N):
        rows = torch.full((len(disc),), k)
        points = threat.project(quadratic.x[rows], quadratic.x[rows] + disc)
        maximum.append(quadratic(points, rows).max())
    gaps = []
    for steps in (3, 200):
        z = FrankWolfe(steps)(quadratic, quadratic.x, threat, NOISE)
        assert threat.contains(quadratic.x, z).all()
        assert (quadratic(z, ROWS) <= torch.stack(maximum) + 1e-4).all()
        gaps.append(certificate(quadratic, threat, z))
    assert (gaps[0] >= -1e-9).all() and (gaps[0] > 0.03).any()
    assert (gaps[1] >= -1e-9).all() and (gaps[1] < 0.02).all()
