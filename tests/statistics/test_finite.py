"""Exact intervals of finite populations: their coverage is computed, not simulated."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from scipy.stats import hypergeom

from unperturbed.statistics.finite import marked_in_population


@pytest.mark.parametrize(("size", "drawn"), [(1, 1), (12, 5), (40, 8), (40, 35), (90, 30)])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_every_number_is_covered_often_enough(size: int, drawn: int, level: float) -> None:
    """For every true number the samples whose interval holds it have probability `level` or more."""
    intervals = {marked: marked_in_population(marked, drawn, size, level) for marked in range(drawn + 1)}
    for number in range(size + 1):
        covered = sum(
            hypergeom.pmf(marked, size, number, drawn)
            for marked in range(max(0, drawn - (size - number)), min(drawn, number) + 1)
            if intervals[marked][0] <= number <= intervals[marked][1]
        )
        assert covered >= level - 1e-9, (number, covered)


@given(some.integers(0, 200), some.integers(0, 200), some.integers(1, 200))
@settings(max_examples=60, deadline=None)
def test_its_ends_are_the_last_numbers_that_are_probable_enough(a: int, b: int, c: int) -> None:
    marked, drawn, size = sorted((a, b, c))
    low, high = marked_in_population(marked, drawn, size)
    assert marked <= low <= high <= size - (drawn - marked)
    assert drawn == 0 or low <= round(marked * size / drawn) <= high
    assert low == marked or hypergeom.sf(marked - 1, size, low - 1, drawn) <= 0.001
    assert high == size - (drawn - marked) or hypergeom.cdf(marked, size, high + 1, drawn) <= 0.049
    assert hypergeom.sf(marked - 1, size, low, drawn) > 0.001 and hypergeom.cdf(marked, size, high, drawn) > 0.049


def test_a_census_is_certain_and_no_sample_tells_nothing() -> None:
    assert marked_in_population(3, 17, 17) == (3, 3)
    assert marked_in_population(0, 0, 17) == (0, 17)


def test_nothing_marked_in_300_of_2000() -> None:
    """The rule of three: at most 1% of the population, where equal shares of the error allow 1.2%."""
    low, high = marked_in_population(0, 300, 2000)
    clopper_pearson = max(m for m in range(2000) if hypergeom.cdf(0, 2000, m, 300) > 0.025)
    assert low == 0 and 0.008 * 2000 < high < 0.01 * 2000 < clopper_pearson


@pytest.mark.slow
@pytest.mark.parametrize("marked", [0, 1, 2, 4])
def test_for_few_marked_it_is_narrower_than_with_equal_shares_of_the_error(marked: int) -> None:
    low, high = marked_in_population(marked, 300, 5000)
    numbers = range(5001)
    likely = [hypergeom.sf(marked - 1, 5000, m, 300) > 0.025 < hypergeom.cdf(marked, 5000, m, 300) for m in numbers]
    assert high - low < max(m for m in numbers if likely[m]) - min(m for m in numbers if likely[m])


@pytest.mark.parametrize("numbers", [(-1, 2, 3), (3, 2, 3), (1, 4, 3)])
def test_impossible_numbers_are_refused(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="marked of"):
        marked_in_population(*numbers)
