"""Differences with their intervals and decisions as a chart."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from unperturbed.errors import InputError
from unperturbed.findings import Decision
from unperturbed.reports.charts.style import COLOURS, INK, headed, house_style, printable

STYLES: dict[Decision, tuple[str, str]] = {
    "held": (COLOURS[2], "o"),
    "did not hold": (COLOURS[1], "X"),
    "not decided here": (INK, "D"),
}
"""Colour and marker of each decision."""
WIDTH = 52
"""Letters in a line of a label."""


@dataclass(frozen=True)
class Difference:
    """A difference with its 95% interval and the decision on a claim about it.

    Attributes:
        name: the claim.
        mean: the difference.
        low: lower end of the interval.
        high: upper end.
        decision: on the claim.
        thresholds: the values from which the difference is told apart.
    """

    name: str
    mean: float
    low: float
    high: float
    decision: Decision
    thresholds: tuple[float, ...] = (0.0,)


def differences_chart(differences: Sequence[Difference], title: str, caption: str) -> Figure:
    """Return a chart with one panel per difference, its interval as a bar, and dotted lines at its thresholds.

    Every panel has its scale, since the differences may have different units. Infinite ends are not drawn.

    Raises:
        InputError: without differences.
    """
    if not differences:
        raise InputError("There is no difference to draw: give at least one.")
    with house_style():
        figure = Figure(figsize=(6.4, 0.9 + 0.85 * len(differences)))
        panels = figure.subplots(len(differences), squeeze=False)[:, 0]
        for axes, difference in zip(panels, differences, strict=True):
            colour, marker = STYLES[difference.decision]
            for threshold in difference.thresholds:
                axes.axvline(threshold, linestyle=":", linewidth=1, color=INK)
            if all(map(math.isfinite, (difference.mean, difference.low, difference.high))):
                axes.plot([difference.low, difference.high], [0, 0], color=colour, linewidth=1.5)
                axes.plot([difference.mean], [0], color=colour, marker=marker)
            label = "\n".join(textwrap.wrap(printable(difference.name), WIDTH))
            axes.set_yticks([0], [f"{label}\n{difference.decision}"], fontsize=7)
            axes.set_ylim(-1, 1)
            axes.grid(False, axis="y")
            axes.tick_params(axis="x", labelsize=7)
        headed(figure, title, caption)
    return figure
