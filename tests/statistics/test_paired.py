import math

import numpy as np
import pytest
import torch
from scipy.stats import ttest_1samp

from unperturbed.statistics.paired import PairedMean, interval, mcnemar, share_interval, verdict


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


def test_the_interval_of_a_difference_of_shares_is_the_published_one() -> None:
    low, high = share_interval(gained=9, lost=2, n=60)
    centre, spread = (10 - 3) / 62, math.sqrt((13 / 62 - (7 / 62) ** 2) / 62)
    assert (low, high) == pytest.approx((centre - 1.959964 * spread, centre + 1.959964 * spread), abs=1e-6)
    assert share_interval(0, 0, 5)[0] >= -1


@pytest.mark.parametrize("rates", [(0.02, 0.02), (0.10, 0.03), (0.0, 0.01)])
def test_at_least_nineteen_of_twenty_intervals_of_differences_hold_the_truth(rates: tuple[float, float]) -> None:
    generator = np.random.default_rng(0)
    held = 0
    for gained, lost, _ in generator.multinomial(200, (*rates, 1 - sum(rates)), size=1000).tolist():
        low, high = share_interval(gained, lost, 200)
        held += low <= rates[0] - rates[1] <= high
    assert held >= 935


def test_mcnemar_counts_the_tosses_of_a_fair_coin() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 0) == pytest.approx(2 * 0.5**5)
    assert mcnemar(3, 3) == 1.0
    assert mcnemar(8, 1) == pytest.approx(2 * (1 + 9) * 0.5**9)


def test_without_examples_the_p_is_that_of_students_test_over_seeds() -> None:
    values = torch.tensor([[0.3], [0.1], [0.4], [0.2]], dtype=torch.float64)
    paired = PairedMean.of(values)
    for threshold in (0.0, 0.2, 0.5):
        assert paired.p_beyond(threshold) == pytest.approx(ttest_1samp(values[:, 0].numpy(), threshold).pvalue)


def test_one_value_alone_has_an_infinite_interval() -> None:
    assert PairedMean.of(torch.ones(1, 1, dtype=torch.float64)).interval() == (-math.inf, math.inf)


def test_equal_differences_are_no_more_certain_than_the_least_error() -> None:
    paired = PairedMean.of(torch.zeros(5, 100, dtype=torch.float64), least_error=0.01)
    assert paired.interval() == pytest.approx((-0.0196, 0.0196), abs=1e-4)
    assert PairedMean.of(torch.zeros(5, 100, dtype=torch.float64)).p_beyond(0.0) == 1.0


def test_the_needed_seeds_are_those_of_the_closed_form_for_a_large_sample() -> None:
    """(1.96 + 0.84)^2 s^2 / d^2 for the normal law, and a little more for Student's."""
    paired = PairedMean(0.1, 1.0, 0.0, 0.0, seeds=5, examples=1)
    normal = (1.959964 + 0.841621) ** 2 / 0.1**2
    needed = paired.seeds_needed(0.1)
    assert needed is not None and normal < needed < normal + 5


def test_no_number_of_seeds_decides_what_too_few_examples_hide() -> None:
    paired = PairedMean(0.01, 0.0001, 1.0, 0.0, seeds=5, examples=100)
    assert paired.seeds_needed(0.01) is None


def draw(count: int, seeds: int, mean: float, generator: torch.Generator) -> torch.Tensor:
    """Return differences (count, seeds, 50) with effects of seeds, of examples, and of both."""
    of_seed = 0.3 * torch.randn(count, seeds, 1, generator=generator, dtype=torch.float64)
    of_example = 0.5 * torch.randn(count, 1, 50, generator=generator, dtype=torch.float64)
    rest = torch.randn(count, seeds, 50, generator=generator, dtype=torch.float64)
    return mean + of_seed + of_example + rest


@pytest.mark.slow
def test_with_the_needed_seeds_four_of_five_studies_decide() -> None:
    generator = torch.Generator().manual_seed(0)
    pilots = [PairedMean.of(pilot) for pilot in draw(100, 40, 0.3, generator)]
    needed = sorted(count for pilot in pilots if (count := pilot.seeds_needed(0.3)) is not None)
    typical = needed[len(needed) // 2]
    decided = [PairedMean.of(study).p_beyond(0.0) < 0.05 for study in draw(400, typical, 0.3, generator)]
    assert 0.74 <= sum(decided) / 400 <= 0.88
