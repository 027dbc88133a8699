"""Robust accuracy against eps as a chart."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from unperturbed.errors import InputError
from unperturbed.findings import Interval
from unperturbed.reports.charts.style import headed, house_style, in_legend, printable


@dataclass(frozen=True)
class AccuracyCurve:
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


def curves_chart(curves: Sequence[AccuracyCurve], title: str, caption: str, across: str = "eps") -> Figure:
    """Return a chart of the accuracy of each model over eps, each in the band of its interval; `across` names eps.

    Raises:
        InputError: without curves, and for values that do not fit their radii, or radii that do not rise or are no
        numbers.
    """
    if not curves:
        raise InputError("There is no curve to draw: give at least one.")
    for curve in curves:
        _check(curve)
    with house_style():
        figure = Figure(figsize=(5.6, 3.8))
        axes = figure.subplots()
        for curve in curves:
            values = [value.value for value in curve.values]
            marks = [list(curve.eps).index(eps) for eps in curve.marked]
            (drawn,) = axes.plot(
                curve.eps, values, marker="o", markersize=4, markevery=marks, label=in_legend(curve.name)
            )
            low, high = ([getattr(value, end) for value in curve.values] for end in ("low", "high"))
            axes.fill_between(curve.eps, low, high, color=drawn.get_color(), alpha=0.18, linewidth=0)
        axes.set(xlim=(0, max(curve.eps[-1] for curve in curves)), ylim=(0, 1))
        axes.set(xlabel=printable(across), ylabel="robust accuracy, 95% interval")
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        if any(curve.name for curve in curves):
            axes.legend(loc="upper right")
        headed(figure, title, caption)
    return figure


def _check(curve: AccuracyCurve) -> None:
    if not curve.eps or len(curve.eps) != len(curve.values):
        raise InputError(
            f"The curve {curve.name!r} has {len(curve.eps)} radii and {len(curve.values)} values: as many."
        )
    rising = all(low < high for low, high in zip(curve.eps, curve.eps[1:], strict=False))
    if not rising or curve.eps[0] < 0 or not 0 < curve.eps[-1] < math.inf:
        raise InputError(
            f"The radii of {curve.name!r} must rise, from 0 on, to one above it, but are {list(curve.eps)}."
        )
    if not all(math.isfinite(end) for value in curve.values for end in (value.value, value.low, value.high)):
        raise InputError(f"The curve {curve.name!r} holds values that are not finite: it cannot be drawn.")
    if missing := sorted({*curve.marked} - {*curve.eps}):
        raise InputError(f"The curve {curve.name!r} has no values at the requested dots {missing}.")
