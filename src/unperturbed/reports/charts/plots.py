"""Charts of a document by matplotlib, in the house style: safe for colour-blind readers and readable in grey."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from unperturbed.reports.charts.style import COLOURS, headed, house_style, in_legend, printable
from unperturbed.reports.document import BarChart, Chart, LineChart, MatrixChart, Series

DASHES = ("-", "--", ":", "-.", (0, (6, 2)), (0, (6, 2, 1, 2)))
MARKERS = ("o", "s", "D", "^", "P", "X")
HATCHES = ("", "////", "xxxx", "....")
"""Lines and bars differ in more than their colour, for readers who see grey."""
TALLEST = 40.0
"""The largest height of a figure in inches; without a limit an image of many bars would fill the memory."""
FEW = 32
"""Lines of at most this many points have markers."""


def draw(chart: Chart) -> Figure:
    """Return the figure of a chart."""
    with house_style():
        if isinstance(chart, LineChart):
            return _lines(chart)
        return _bars(chart) if isinstance(chart, BarChart) else _matrix(chart)


def _lines(chart: LineChart) -> Figure:
    figure = Figure(figsize=(5.6, 3.8))
    axes = figure.subplots()
    for number, series in enumerate(chart.series):
        _line(axes, series, number)
    axes.set(xlabel=printable(chart.across), ylabel=printable(chart.up))
    if chart.percent:
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    if "x" in chart.log:
        axes.set_xscale("log")
    if "y" in chart.log:
        axes.set_yscale("log")
    for x, text in chart.marks:
        axes.axvline(x, linestyle=":", linewidth=1, color="#78818c")
        axes.annotate(printable(text), (x, 1), xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize=7)
    if len(chart.series) > 1:
        axes.legend()
    if any(isinstance(position, str) for series in chart.series for position in series.x):
        axes.tick_params(axis="x", labelrotation=45)
    headed(figure, chart.title, "")
    return figure


def _line(axes: Axes, series: Series, number: int) -> None:
    colour = COLOURS[number % len(COLOURS)]
    y = _floats(series.y)
    x = [printable(position) if isinstance(position, str) else position for position in series.x]
    drawstyle = "steps-post" if series.shape == "steps" else "default"
    marker = MARKERS[number % len(MARKERS)] if series.shape == "line" and len(x) <= FEW else ""
    axes.plot(
        x, y, color=colour, linestyle=DASHES[number % len(DASHES)], drawstyle=drawstyle, marker=marker, markersize=4,
        label=in_legend(series.name),
    )  # fmt: skip
    if series.low is not None and series.high is not None:
        axes.fill_between(x, _floats(series.low), _floats(series.high), color=colour, alpha=0.18, linewidth=0)


def _bars(chart: BarChart) -> Figure:
    names = list(dict.fromkeys(bar.name for series in chart.series for bar in series.bars))
    figure = Figure(figsize=(5.6, min(TALLEST, 1.2 + len(names) * (0.16 + 0.14 * len(chart.series)))))
    axes = figure.subplots()
    thickness = 0.8 / len(chart.series)
    for number, series in enumerate(chart.series):
        at = [names.index(bar.name) + (number - (len(chart.series) - 1) / 2) * thickness for bar in series.bars]
        ends = [
            [0.0 if bar.low is None else bar.value - bar.low for bar in series.bars],
            [0.0 if bar.high is None else bar.high - bar.value for bar in series.bars],
        ]
        axes.barh(
            at, [bar.value for bar in series.bars], thickness, color=COLOURS[number % len(COLOURS)],
            hatch=HATCHES[number % len(HATCHES)], edgecolor="white", linewidth=0, label=in_legend(series.name),
            xerr=np.array(ends) if any(map(any, ends)) else None, error_kw={"elinewidth": 0.8, "ecolor": "#78818c"},
        )  # fmt: skip
    axes.set_yticks(range(len(names)), [printable(name) for name in names])
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set(xlabel=printable(chart.across), ylabel=printable(chart.up))
    if len(chart.series) > 1:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2 - 0.6 / (1 + len(names))), ncols=2)
    headed(figure, chart.title, "")
    return figure


def _matrix(chart: MatrixChart) -> Figure:
    counts = np.array(chart.counts, dtype=float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = min(TALLEST, max(3.6, 1.4 + 0.32 * len(chart.rows)))
    figure = Figure(figsize=(size + 0.6, size))
    axes = figure.subplots()
    picture = axes.imshow(shares, cmap="cividis", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        if count and len(chart.rows) <= 20:
            colour = "black" if shares[row, column] > 0.5 else "white"
            axes.text(column, row, f"{count:.0f}", ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(len(chart.columns)), [printable(name) for name in chart.columns], rotation=45, ha="right")
    axes.set_yticks(range(len(chart.rows)), [printable(name) for name in chart.rows])
    axes.grid(False)
    axes.set(xlabel=printable(chart.across), ylabel=printable(chart.up))
    figure.colorbar(picture, ax=axes, format=PercentFormatter(1), label="share of the row", shrink=0.8)
    headed(figure, chart.title, "")
    return figure


def _floats(values: tuple[float | None, ...]) -> list[float]:
    return [np.nan if value is None else value for value in values]
