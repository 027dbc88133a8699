"""Projections on balls with a radius for each example: those of the threat with that radius."""

import math

import pytest
import torch

from unperturbed.errors import InputError
from unperturbed.threat import Threat
from unperturbed.threat.radii import project_within
from unperturbed.types import Bounds, Norm

RADII = [0.0, 0.05, 0.3, 0.7, 2.0, 100.0, math.inf]


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 0.8), None])
@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_each_example_is_projected_on_its_own_ball(norm: Norm, bounds: Bounds) -> None:
    draw = torch.Generator().manual_seed(0)
    threat = Threat(norm, 9.0, bounds)
    x = (1.4 * torch.rand((7, 2, 3), generator=draw, dtype=torch.float64) - 0.2).clamp(0, 0.8)
    z = x + torch.randn(x.shape, generator=draw, dtype=torch.float64)
    found = project_within(threat, x, z, torch.tensor(RADII, dtype=torch.float64))
    for k, radius in enumerate(RADII):
        one = slice(k, k + 1)
        truth = Threat(norm, min(radius, 1e6), bounds).project(x[one], z[one])
        torch.testing.assert_close(found[one], truth, rtol=1e-6, atol=1e-9)
    again = project_within(threat, x, found, torch.tensor(RADII, dtype=torch.float64) + 1e-12)
    torch.testing.assert_close(again, found, rtol=1e-6, atol=1e-9)


def test_l0_is_refused() -> None:
    with pytest.raises(InputError, match="L0"):
        project_within(Threat("L0", 2), torch.zeros(1, 3), torch.ones(1, 3), torch.ones(1))
