"""Robust accuracy against training time as a chart, with the Pareto front."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from adjustText import adjust_text
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, PercentFormatter

from unperturbed.errors import InputError
from unperturbed.findings import Interval
from unperturbed.reports.charts.style import COLOURS, headed, house_style, printable


@dataclass(frozen=True)
class Timed:
    """A method with its training time and its robust accuracy.

    Attributes:
        name: in the chart.
        seconds: of training.
        robust: robust accuracy.
    """

    name: str
    seconds: float
    robust: Interval


def on_front(points: Sequence[Timed]) -> list[bool]:
    """Return for each point whether no other is at least as fast and as robust, and better in one."""

    def beats(first: Timed, second: Timed) -> bool:
        ours, theirs = (-first.seconds, first.robust.value), (-second.seconds, second.robust.value)
        return ours != theirs and ours[0] >= theirs[0] and ours[1] >= theirs[1]

    return [not any(beats(rival, point) for rival in points) for point in points]


def front_chart(points: Sequence[Timed], title: str, caption: str) -> Figure:
    """Return a chart with one point per method: training seconds across (log), robust accuracy upwards with intervals.

    The Pareto front is a line of steps through filled points; other points are hollow.

    Raises:
        InputError: without points, and for values that are not finite or times that are not above 0.
    """
    if not points:
        raise InputError("There is no point to draw: give at least one.")
    for point in points:
        ends = (point.seconds, point.robust.value, point.robust.low, point.robust.high)
        if not all(map(math.isfinite, ends)) or point.seconds <= 0:
            raise InputError(f"The point {point.name!r} ({point.seconds} s, {point.robust}) cannot be drawn.")
    front = on_front(points)
    with house_style():
        figure = Figure(figsize=(7.2, 5.0))
        axes = figure.subplots()
        edge = sorted((p.seconds, p.robust.value) for p, best in zip(points, front, strict=True) if best)
        axes.plot(
            *zip(*edge, strict=True),
            drawstyle="steps-post",
            color=COLOURS[1],
            linewidth=1,
            alpha=0.6,
            label="Pareto front",
        )
        for point, best in zip(points, front, strict=True):
            robust = point.robust
            axes.errorbar(
                point.seconds, robust.value, yerr=[[robust.value - robust.low], [robust.high - robust.value]],
                color=COLOURS[0], ecolor=(COLOURS[0], 0.4), elinewidth=0.8, marker="o",
                markerfacecolor=COLOURS[0] if best else "none",
            )  # fmt: skip
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(_seconds([point.seconds for point in points]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(FixedLocator([]))
        axes.yaxis.set_major_locator(MaxNLocator(6))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.set(xlabel="seconds of training (hollow: another is at least as fast and as robust)")
        axes.set(ylabel="robust accuracy, 95% interval")
        axes.legend(loc="lower right")
        headed(figure, title, caption)
        centres = np.array([(point.seconds, point.robust.value) for point in points])
        labels = [axes.text(x, y, printable(p.name), fontsize=8) for (x, y), p in zip(centres, points, strict=True)]
        figure.canvas.draw()
        arrows = {"arrowstyle": "-", "color": COLOURS[0], "lw": 0.5}
        adjust_text(labels, *centres.T, ax=axes, expand=(1.15, 1.6), arrowprops=arrows)
    return figure


def _seconds(values: Sequence[float]) -> FixedLocator:
    """Return a locator at 1, 2 and 5 times the powers of ten around these values."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return FixedLocator([step * 10.0**power for power in range(low, high + 1) for step in (1, 2, 5)])
