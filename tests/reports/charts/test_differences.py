import math

import numpy as np
import pytest

from unperturbed.errors import InputError
from unperturbed.reports.charts.differences import STYLES, Difference, differences_chart


def test_every_difference_has_its_interval_and_the_thresholds() -> None:
    given = [
        Difference("first", 0.1, 0.05, 0.15, "held"),
        Difference("second", 0.0, -0.05, 0.05, "not decided here", (-0.02, 0.02)),
    ]
    figure = differences_chart(given, "Title", "caption")
    for axes, difference in zip(figure.axes, given, strict=True):
        *marks, bar, point = axes.lines
        assert [mark.get_xdata()[0] for mark in marks] == list(difference.thresholds)
        np.testing.assert_allclose(bar.get_xdata(), [difference.low, difference.high])
        np.testing.assert_allclose(point.get_xdata(), [difference.mean])
        assert point.get_marker() == STYLES[difference.decision][1]
        assert difference.decision in axes.get_yticklabels()[0].get_text()


def test_infinite_ends_are_not_drawn_and_nothing_is_refused() -> None:
    figure = differences_chart([Difference("one", 0.0, -math.inf, math.inf, "not decided here")], "", "")
    assert len(figure.axes[0].lines) == 1
    with pytest.raises(InputError, match="no difference"):
        differences_chart([], "", "")
