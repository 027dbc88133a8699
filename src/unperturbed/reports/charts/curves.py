"""Robust accuracy against eps as a chart."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from unperturbed.errors import InputError
from unperturbed.findings import Interval
from unperturbed.reports.charts.style import headed, house_style, printable


@dataclass(frozen=True)
class Line:
    """One model's curve: its accuracy at each eps.

    Attributes:
        name: the model's; empty: none is shown.
        eps: the radii, rising.
        values: the accuracy at each, with its interval.
        marked: the radii that get a dot, among `eps`.
    """

    name: str
    eps: Sequence[float]
    values: Sequence[Interval]
    marked: Sequence[float] = ()


def curves_chart(lines: Sequence[Line], title: str, caption: str, across: str = "eps") -> Figure:
    """Return a chart of the accuracy of each model over eps, each in the band of its interval; `across` names eps.

    Raises:
        InputError: without lines, and on values that do not fit their radii, or radii that do not rise or are no
            numbers.
    """
    if not lines:
        raise InputError("There is no curve to draw: give at least one.")
    for line in lines:
        _check(line)
    with house_style():
        figure = Figure(figsize=(5.6, 3.8))
        axes = figure.subplots()
        for line in lines:
            values = [value.value for value in line.values]
            marks = [list(line.eps).index(eps) for eps in line.marked]
            (curve,) = axes.plot(
                line.eps, values, marker="o", markersize=4, markevery=marks, label=printable(line.name)
            )
            low, high = ([getattr(value, end) for value in line.values] for end in ("low", "high"))
            axes.fill_between(line.eps, low, high, color=curve.get_color(), alpha=0.18, linewidth=0)
        axes.set(xlim=(0, max(line.eps[-1] for line in lines)), ylim=(0, 1))
        axes.set(xlabel=printable(across), ylabel="robust accuracy, 95% interval")
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        if any(line.name for line in lines):
            axes.legend(loc="upper right")
        headed(figure, title, caption)
    return figure


def _check(line: Line) -> None:
    if not line.eps or len(line.eps) != len(line.values):
        raise InputError(f"The curve {line.name!r} has {len(line.eps)} radii and {len(line.values)} values: as many.")
    rising = all(low < high for low, high in zip(line.eps, line.eps[1:], strict=False))
    if not rising or line.eps[0] < 0 or not 0 < line.eps[-1] < math.inf:
        raise InputError(f"The radii of {line.name!r} must rise, from 0 on, to one above it, but are {list(line.eps)}.")
    if not all(math.isfinite(end) for value in line.values for end in (value.value, value.low, value.high)):
        raise InputError(f"The curve {line.name!r} holds values that are not finite: it cannot be drawn.")
    if missing := sorted({*line.marked} - {*line.eps}):
        raise InputError(f"Dots at {missing} were asked for, where the curve {line.name!r} has no value.")
