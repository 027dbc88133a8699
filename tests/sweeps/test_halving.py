"""Successive halving: the epochs of the comparisons, and the runs that are promoted."""

import pytest

from unperturbed.errors import InputError
from unperturbed.sweeps.halving import best_third, rungs_of


@pytest.mark.parametrize(
    ("epochs", "rungs"), [(3, (1, 3)), (9, (1, 3, 9)), (10, (1, 3, 10)), (8, (2, 8)), (30, (1, 3, 10, 30))]
)
def test_a_comparison_takes_a_third_of_the_epochs_of_the_next(epochs: int, rungs: tuple[int, ...]) -> None:
    assert rungs_of(epochs) == rungs


def test_too_few_epochs_are_refused() -> None:
    with pytest.raises(InputError, match="epochs is 2"):
        rungs_of(2)


def test_exactly_the_best_third_is_promoted() -> None:
    assert best_third({0: 0.1, 1: 0.9, 2: 0.3, 3: 0.5, 4: 0.2, 5: 0.8}) == [1, 5]
    assert best_third({0: 0.5, 1: 0.5, 2: 0.5}) == [0], "of equal runs the first"
    assert best_third({4: 0.1}) == [4] and best_third({1: 0.1, 7: 0.2}) == [7], "one at least"
    assert best_third(dict.fromkeys(range(11), 0.5)) == [0, 1, 2]
