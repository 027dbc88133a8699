"""Robust accuracy against time: what is on the front, and labels that do not overlap."""

import math

import numpy as np
import pytest

from unperturbed.errors import InputError
from unperturbed.findings import Interval
from unperturbed.reports.charts.front import Timed, front_chart, on_front


def timed(name: str, seconds: float, robust: float) -> Timed:
    return Timed(name, seconds, Interval(robust, max(robust - 0.02, 0.0), min(robust + 0.02, 1.0), 100))


def test_the_front_is_that_of_brute_force() -> None:
    draw = np.random.default_rng(0)
    points = [timed(str(k), float(s), float(r)) for k, (s, r) in enumerate(draw.uniform(0.1, 0.9, (40, 2)).round(1))]
    for point, best in zip(points, on_front(points), strict=True):
        beaten = any(
            rival.seconds <= point.seconds
            and rival.robust.value >= point.robust.value
            and (rival.seconds < point.seconds or rival.robust.value > point.robust.value)
            for rival in points
        )
        assert best == (not beaten)


def test_the_line_passes_through_the_front_in_the_order_of_time_and_other_points_are_hollow() -> None:
    points = [timed("slow", 100, 0.5), timed("fast", 2, 0.1), timed("beaten", 50, 0.05), timed("middle", 10, 0.4)]
    (axes,) = front_chart(points, "Title", "caption").axes
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [(2, 0.1), (10, 0.4), (100, 0.5)])
    hollow = [bars.lines[0].get_markerfacecolor() == "none" for bars in axes.containers]
    assert hollow == [False, False, True, False]


def test_labels_of_near_points_do_not_overlap() -> None:
    points = [timed(f"method {k}", 10 + 0.2 * k, 0.5 + 0.002 * k) for k in range(6)]
    figure = front_chart(points, "Title", "caption")
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts if text.get_text().startswith("method")]
    assert len(boxes) == 6
    assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])


@pytest.mark.parametrize("seconds, robust", [(0.0, 0.5), (math.nan, 0.5), (1.0, math.nan)])
def test_what_cannot_be_drawn_is_refused(seconds: float, robust: float) -> None:
    with pytest.raises(InputError, match="'bad'"):
        front_chart([Timed("bad", seconds, Interval(robust, robust, robust, 1))], "", "")
    with pytest.raises(InputError, match="no point"):
        front_chart([], "", "")
