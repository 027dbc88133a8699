"""The chart of curves shows the numbers, and refuses what has none."""

import math
from dataclasses import replace

import numpy as np
import pytest

from unperturbed.errors import InputError
from unperturbed.findings import Interval
from unperturbed.reports.charts.curves import AccuracyCurve, curves_chart

EPS = (0.0, 0.1, 0.25, 0.4)
VALUES = tuple(Interval(value, value - 0.05, min(value + 0.1, 1.0), 50) for value in (1.0, 0.6, 0.3, 0.05))
LINE = AccuracyCurve("model", EPS, VALUES, (0.1, 0.4))


def test_line_band_and_dots_lie_where_the_numbers_say() -> None:
    (axes,) = curves_chart([LINE], "Title", "caption", "eps (L2)").axes
    (line,) = axes.get_lines()
    np.testing.assert_allclose(
        np.array(line.get_xydata()), [(eps, v.value) for eps, v in zip(EPS, VALUES, strict=True)]
    )
    assert line.get_markevery() == [1, 3]
    (band,) = axes.collections
    corners = {(round(x, 9), round(y, 9)) for x, y in band.get_paths()[0].vertices.tolist()}
    assert {(eps, round(v.low, 9)) for eps, v in zip(EPS, VALUES, strict=True)} <= corners
    assert {(eps, round(v.high, 9)) for eps, v in zip(EPS, VALUES, strict=True)} <= corners
    assert axes.get_xlim() == (0, 0.4) and axes.get_ylim() == (0, 1)
    assert (axes.get_title(), axes.get_xlabel()) == ("caption", "eps (L2)")


def test_all_lines_share_the_axes_and_differ_in_colour() -> None:
    (axes,) = curves_chart([LINE, AccuracyCurve("other", [2 * eps for eps in EPS], VALUES)], "t", "").axes
    assert len({line.get_color() for line in axes.get_lines()}) == 2
    assert axes.get_xlim() == (0, 0.8)
    legend = axes.get_legend()
    assert legend is not None and [text.get_text() for text in legend.get_texts()] == ["model", "other"]


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [replace(LINE, values=VALUES[:2])],
        [AccuracyCurve("", (), ())],
        [replace(LINE, eps=(0.0, 0.2, 0.1, 0.3))],
        [replace(LINE, eps=(-0.1, 0.2, 0.3, 0.4))],
        [AccuracyCurve("", (0.0,), VALUES[:1])],
        [replace(LINE, eps=(0.0, 0.1, 0.2, math.inf), marked=())],
        [replace(LINE, values=(*VALUES[:3], Interval(math.nan, 0.0, 1.0, 5)))],
        [replace(LINE, marked=(0.3,))],
    ],
)
def test_what_cannot_be_drawn_is_refused(lines: list[AccuracyCurve]) -> None:
    with pytest.raises(InputError):
        curves_chart(lines, "t", "")
