"""The picture of clean against robust accuracy: where the numbers say, and hollow where another point is better."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unperturbed.errors import InputError
from unperturbed.findings import Interval
from unperturbed.reports.charts.trade_off import Point, mark_dominated, trade_off_chart


def share(value: float, width: float = 0.02) -> Interval:
    return Interval(value, max(value - width, 0.0), min(value + width, 1.0), 100)


def points(*pairs: tuple[float, float]) -> list[Point]:
    return [Point(f"p{k}", share(clean), share(robust)) for k, (clean, robust) in enumerate(pairs)]


# Domination


def test_a_point_is_dominated_by_one_at_least_as_good_in_both_and_better_in_one() -> None:
    marked = mark_dominated(points((0.9, 0.5), (0.9, 0.4), (0.8, 0.5), (0.95, 0.3), (0.7, 0.6), (0.9, 0.5)))
    assert [point.dominated for point in marked] == [False, True, True, False, False, False]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=8))
def test_what_is_left_is_a_front_and_nothing_better_was_marked(pairs: list[tuple[int, int]]) -> None:
    marked = mark_dominated(points(*((a / 4, b / 4) for a, b in pairs)))
    left = {pair for pair, point in zip(pairs, marked, strict=True) if not point.dominated}
    rising = sorted(left)
    assert rising and [b for _, b in rising] == sorted({b for _, b in left}, reverse=True), (
        "more of one is less of the other"
    )
    for pair, point in zip(pairs, marked, strict=True):
        assert point.dominated == any(a >= pair[0] and b >= pair[1] and (a, b) != pair for a, b in left)


# The chart


def test_points_and_bars_lie_where_the_numbers_say() -> None:
    drawn = [replace(point, dominated=k == 1) for k, point in enumerate(points((0.95, 0.4), (0.9, 0.3)))]
    (axes,) = trade_off_chart(drawn, "Title", "caption").axes
    for point, bars in zip(drawn, axes.containers, strict=True):
        marker, _, (across, up) = bars.lines
        np.testing.assert_allclose(marker.get_xydata(), [(point.clean.value, point.robust.value)])
        clean = [(point.clean.low, point.robust.value), (point.clean.high, point.robust.value)]
        robust = [(point.clean.value, point.robust.low), (point.clean.value, point.robust.high)]
        np.testing.assert_allclose(across.get_segments()[0], clean)
        np.testing.assert_allclose(up.get_segments()[0], robust)
        assert (marker.get_markerfacecolor() == "none") == point.dominated
    assert [text.get_text() for text in axes.texts[:2]] == ["p0", "p1"]


def test_names_keep_out_of_each_others_way() -> None:
    figure = trade_off_chart(points((0.5, 0.5), (0.501, 0.501), (0.502, 0.5)), "t", "")
    names = [text for text in figure.axes[0].texts if text.get_text().startswith("p")]
    boxes = [text.get_window_extent() for text in names]
    assert len(boxes) == 3
    assert not any(one.overlaps(other) for place, one in enumerate(boxes) for other in boxes[:place])


@pytest.mark.parametrize(
    "drawn",
    [[], [Point("", Interval(math.nan, 0, 1, 5), share(0.5))], [Point("", share(0.5), Interval(0.5, 0, math.inf, 5))]],
)
def test_what_cannot_be_drawn_is_refused(drawn: list[Point]) -> None:
    with pytest.raises(InputError):
        trade_off_chart(drawn, "t", "")
