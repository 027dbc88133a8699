"""The picture of clean against robust accuracy: where the numbers say, and hollow where another point is better."""

import math
from dataclasses import replace

import numpy as np
import pytest

from unperturbed.errors import InputError
from unperturbed.findings import Interval
from unperturbed.reports.charts.trade_off import trade_off_chart
from unperturbed.statistics.domination import Point


def share(value: float, width: float = 0.02) -> Interval:
    return Interval(value, max(value - width, 0.0), min(value + width, 1.0), 100)


def points(*pairs: tuple[float, float]) -> list[Point]:
    return [Point(f"p{k}", share(clean), share(robust)) for k, (clean, robust) in enumerate(pairs)]


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


@pytest.mark.slow
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
