"""Loss surfaces side by side as a chart."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from unperturbed.errors import InputError
from unperturbed.reports.charts.style import INK, house_style, printable

ACROSS = 3
"""The largest number of panels in a row."""


@dataclass(frozen=True)
class Panel:
    """The surface of one model: `values[i][j]` is the loss at along[i] on the first axis, along[j] on the second.

    Attributes:
        name: the model's.
        caption: one number with its description.
        along: positions in units of eps, rising; the same on both axes.
        values: the loss at each pair of them.
    """

    name: str
    caption: str
    along: Sequence[float]
    values: Sequence[Sequence[float]]


def surfaces_chart(panels: Sequence[Panel], title: str) -> Figure:
    """Return a chart with one panel per model: its loss over (gradient direction, random direction).

    All panels have the same scales, so that heights compare; a dot marks the example itself.

    Raises:
        InputError: without panels; for values that do not fit their positions or are not finite, and positions that do
        not rise.
    """
    if not panels:
        raise InputError("There is no surface to draw: give at least one.")
    for panel in panels:
        _check(panel)
    values = [value for panel in panels for row in panel.values for value in row]
    low, high = min(values), max(values)
    rows = math.ceil(len(panels) / ACROSS)
    columns = math.ceil(len(panels) / rows)
    with house_style():
        figure = Figure(figsize=(3.4 * columns, 3.4 * rows + 0.4))
        for number, panel in enumerate(panels, 1):
            axes = figure.add_subplot(rows, columns, number, projection="3d", computed_zorder=False)
            first, second = np.meshgrid(panel.along, panel.along, indexing="ij")
            heights = np.array(panel.values, dtype=float)
            axes.plot_surface(first, second, heights, cmap="cividis", vmin=low, vmax=high, rcount=40, ccount=40)
            middle = min(range(len(panel.along)), key=lambda k: abs(panel.along[k]))
            at = panel.along[middle]
            axes.scatter([at], [at], [heights[middle, middle]], color="white", edgecolors="black", s=24, zorder=5)
            axes.set(xlabel="gradient direction (eps)", ylabel="random direction (eps)", zlabel="loss")
            axes.set_zlim(low, high if high > low else low + max(abs(low), 1.0))
            axes.view_init(elev=28, azim=-130)
            axes.set_box_aspect(None, zoom=0.85)
            axes.tick_params(labelsize=7)
            for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
                axis.set_pane_color((0.5, 0.5, 0.5, 0.06))
                axis.label.set_size(8)
            axes.set_title(f"{printable(panel.name)}\n{printable(panel.caption)}", fontsize=9, color=INK)
        figure.suptitle(printable(title), fontsize=11, fontweight="bold")
    return figure


def _check(panel: Panel) -> None:
    n = len(panel.along)
    if n < 2 or any(not low < high for low, high in zip(panel.along, panel.along[1:], strict=False)):
        raise InputError(f"The positions of {panel.name!r} must be at least two and rise, but are {list(panel.along)}.")
    if len(panel.values) != n or any(len(row) != n for row in panel.values):
        raise InputError(f"The surface of {panel.name!r} must have {n} rows of {n} values, as many as positions.")
    if not all(math.isfinite(value) for row in (*panel.values, panel.along) for value in row):
        raise InputError(f"The surface of {panel.name!r} holds values that are not finite: it cannot be drawn.")
