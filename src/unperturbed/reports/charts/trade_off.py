"""Clean against robust accuracy as a chart."""

import math
from collections.abc import Sequence

import numpy as np
from adjustText import adjust_text
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from unperturbed.errors import InputError
from unperturbed.findings import Interval
from unperturbed.reports.charts.style import COLOURS, headed, house_style, printable
from unperturbed.statistics.domination import Point


def trade_off_chart(points: Sequence[Point], title: str, caption: str) -> Figure:
    """Return a chart with one point per model, clean accuracy across and robust accuracy upwards, with intervals as
    bars.

    The axes reach from the lowest to the highest end of an interval, not from 0. Dominated points are hollow.

    Raises:
        InputError: without points, and for values that are not finite.
    """
    if not points:
        raise InputError("There is no point to draw: give at least one.")
    for point in points:
        ends = [end for share in (point.clean, point.robust) for end in (share.value, share.low, share.high)]
        if not all(map(math.isfinite, ends)):
            raise InputError(f"The point {point.name!r} holds values that are not finite: it cannot be drawn.")
    with house_style():
        figure = Figure(figsize=(5.6, 4.0))
        axes = figure.subplots()
        for point in points:
            axes.errorbar(
                point.clean.value,
                point.robust.value,
                xerr=_bars(point.clean),
                yerr=_bars(point.robust),
                color=COLOURS[0],
                ecolor=(COLOURS[0], 0.4),
                elinewidth=0.8,
                marker="o",
                markerfacecolor="none" if point.dominated else COLOURS[0],
            )
        axes.set(xlabel="clean accuracy, 95% interval (hollow: another point is at least as good in both)")
        axes.set(ylabel="robust accuracy, 95% interval")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(6))
            axis.set_major_formatter(PercentFormatter(1))
        headed(figure, title, caption)
        centres = np.array([(point.clean.value, point.robust.value) for point in points])
        names = [
            axes.text(x, y, printable(point.name), fontsize=8) for (x, y), point in zip(centres, points, strict=True)
        ]
        figure.canvas.draw()
        adjust_text(names, *centres.T, ax=axes, arrowprops={"arrowstyle": "-", "color": COLOURS[0], "lw": 0.5})
    return figure


def _bars(share: Interval) -> list[list[float]]:
    return [[max(share.value - share.low, 0.0)], [max(share.high - share.value, 0.0)]]
