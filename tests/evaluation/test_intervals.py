import math

import pytest

from unperturbed.evaluation.intervals import wilson
from unperturbed.findings import Interval

Z = 1.959963984540054


def closed_form(successes: int, n: int, sign: int) -> float:
    """Return one end of Wilson's interval: the p whose observed share lies 1.96 standard errors away."""
    p = successes / n
    centre = p + Z**2 / (2 * n)
    return (centre + sign * Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))) / (1 + Z**2 / n)


@pytest.mark.parametrize("successes", [0, 1, 37, 99, 100])
def test_wilson(successes: int) -> None:
    interval = wilson(successes, 100)
    assert interval.value == successes / 100 and interval.n == 100
    assert interval.low == pytest.approx(closed_form(successes, 100, -1), abs=1e-9)
    assert interval.high == pytest.approx(closed_form(successes, 100, 1), abs=1e-9)
    assert 0 <= interval.low <= interval.value <= interval.high <= 1


def test_what_is_unknown_widens_the_interval_upwards_only() -> None:
    sure, unsure = wilson(60, 100), wilson(60, 100, at_most=80)
    assert unsure.value == 0.6 and unsure.low == sure.low and unsure.high == wilson(80, 100).high > sure.high


def test_more_examples_make_it_narrower() -> None:
    assert wilson(600, 1000).high - wilson(600, 1000).low < 0.5 * (wilson(60, 100).high - wilson(60, 100).low)


def test_no_examples_tell_nothing() -> None:
    assert wilson(0, 0) == Interval(0.0, 0.0, 1.0, 0)
