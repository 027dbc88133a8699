import pytest

from unperturbed.statistics.holm import holm


def test_the_smallest_of_n_is_multiplied_by_n_and_none_is_smaller_than_those_before_it() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx((0.03, 0.06, 0.06))
    assert holm([0.2]) == (0.2,)
    assert holm([0.9, 0.8]) == (1.0, 1.0)
    assert holm([]) == ()


def test_a_test_more_makes_no_p_smaller() -> None:
    values = [0.001, 0.02, 0.4]
    assert all(more >= fewer for more, fewer in zip(holm([*values, 0.01]), holm(values), strict=False))
