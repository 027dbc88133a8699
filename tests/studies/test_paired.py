import math

import pytest
import torch
from studies.paired import interval, verdict


def test_with_one_seed_the_interval_is_that_of_a_mean_over_examples() -> None:
    differences = torch.tensor([[1.0, 0.0, 0.0, -1.0, 1.0, 0.0, 1.0, 0.0]], dtype=torch.float64)
    mean, low, high = interval(differences)
    half = 1.959964 * float(differences.std()) / math.sqrt(8)
    assert (mean, low, high) == pytest.approx((0.25, 0.25 - half, 0.25 + half))


def test_a_difference_that_changes_with_the_seed_is_less_certain_than_its_examples_say() -> None:
    steady = torch.zeros(3, 1000, dtype=torch.float64)
    steady[:, :100] = 1.0
    wavering = torch.zeros(3, 1000, dtype=torch.float64)
    for seed, count in enumerate((50, 100, 150)):
        wavering[seed, :count] = 1.0
    (_, low, high), (_, lower, higher) = interval(steady), interval(wavering)
    assert higher - lower > 2 * (high - low)


@pytest.mark.parametrize("between_seeds", [0.0, 0.05])
def test_nineteen_of_twenty_intervals_hold_the_truth(between_seeds: float) -> None:
    generator = torch.Generator().manual_seed(0)
    held = 0
    for _ in range(400):
        seeds = between_seeds * torch.randn(3, 1, generator=generator, dtype=torch.float64)
        examples = 0.5 * torch.randn(1, 200, generator=generator, dtype=torch.float64)
        own = 0.2 * torch.randn(3, 200, generator=generator, dtype=torch.float64)
        _, low, high = interval(0.1 + seeds + examples + own)
        held += low < 0.1 < high
    assert 0.92 <= held / 400 <= 0.99


def test_what_an_interval_says_of_a_claim() -> None:
    assert verdict(0.01, 0.02, 2) == "held"
    assert verdict(-0.01, 0.02, 2) == "not decided here"
    assert verdict(-0.02, -0.01, 3) == "did not hold"


def test_one_seed_decides_nothing() -> None:
    for ends in ((0.01, 0.02), (-0.02, -0.01), (-0.01, 0.02)):
        assert verdict(*ends, 1).startswith("not decided here (one network")
