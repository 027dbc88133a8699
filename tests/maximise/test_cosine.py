"""The cosine schedule against its formula, and the end of a climb against the exact maximum."""

import math

import pytest
import torch

from support.examples import NORMS, inputs_within, linear_score
from unperturbed.errors import InputError
from unperturbed.maximise.cosine import CosinePGD
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Norm

X = inputs_within(Threat("Linf", 0.1), 6, (2, 3, 3), torch.float64, 0)
NOISE = Noise.of(0, torch.arange(6) + 50)


@pytest.mark.parametrize(
    ("k", "expected"), [(0, 2.0), (5, 1.0), (9, 1 + math.cos(0.9 * math.pi)), (10, 2.0), (15, 1.0)]
)
def test_each_cycle_falls_along_half_a_cosine(k: int, expected: float) -> None:
    threat, score = Threat("L2", 0.1, None), linear_score(X, 2)
    unit = score.slope / score.slope.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    start = X - 0.1 * unit  # the whole step is seen from the other side of the ball
    moved = CosinePGD(steps=20, cycles=2).step(X, start, torch.zeros(6, dtype=X.dtype), score.slope, k, {}, threat)
    torch.testing.assert_close(moved, start + min(expected, 2.0) * 0.1 * unit, rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_the_maximum_of_a_linear_score_is_reached(norm: Norm) -> None:
    threat, score = Threat(norm, 0.2), linear_score(X, 2)
    z = CosinePGD(steps=60)(score, X, threat, NOISE)
    best = (score.slope * (threat.maximise_linear(X, score.slope) - X)).flatten(1).sum(1)
    gain = (score.slope * (z - X)).flatten(1).sum(1)
    assert threat.contains(X, z).all()
    assert (gain >= (0.98 if norm == "L1" else 0.999) * best - 1e-9).all()


@pytest.mark.parametrize("settings", [{"steps": 0}, {"cycles": 0}, {"size": 0.0}])
def test_numbers_that_leave_nothing_to_do_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(InputError):
        CosinePGD(**settings)  # type: ignore[arg-type]
