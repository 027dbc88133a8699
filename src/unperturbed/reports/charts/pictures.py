"""Grids of images and of signed maps as a chart, and each cell as a PNG file."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from unperturbed.errors import InputError
from unperturbed.reports.charts.style import INK, house_style, printable

SIGNED = "PuOr"
"""The colours of signed maps: safe for colour-blind readers, and 0 is white."""
Cell = tuple[np.ndarray, bool]
"""(channels, height, width) and whether the values are signed; unsigned ones are images in [0, 1]."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Pictures in rows and columns.

    Attributes:
        name: of the files.
        title: above the grid.
        caption: one sentence on the columns.
        rows: the name of each row.
        columns: the name of each column.
        cells: row by row.
    """

    name: str
    title: str
    caption: str
    rows: Sequence[str]
    columns: Sequence[str]
    cells: Sequence[Sequence[Cell]]

    @property
    def alt(self) -> str:
        """The text alternative."""
        return f"{self.title}: {len(self.rows)} rows ({', '.join(self.rows)}) by columns {', '.join(self.columns)}."


def as_rgb(cell: Cell) -> np.ndarray:
    """Return a cell as 8-bit colours, (height, width, 3).

    A signed map is summed over the channels and divided by its largest magnitude. Values that are not finite are grey.

    Raises:
        InputError: for a shape that is no image.
    """
    values, signed = cell
    if values.ndim != 3 or (not signed and values.shape[0] not in (1, 3)):
        raise InputError(f"A picture has shape {values.shape}: give (1, height, width) or (3, height, width).")
    finite = np.isfinite(values).all(axis=0)
    if signed:
        flat = np.nan_to_num(values.sum(axis=0))
        largest = np.abs(flat).max() or 1.0
        colours = matplotlib.colormaps[SIGNED](0.5 - flat / largest / 2)[:, :, :3]
    else:
        colours = np.nan_to_num(np.broadcast_to(values, (3, *values.shape[1:]))).clip(0, 1).transpose(1, 2, 0)
    rgb: np.ndarray = np.round(colours * 255).astype(np.uint8)
    rgb[~finite] = 128
    return rgb


def png_of(cell: Cell) -> bytes:
    """Return a cell as a PNG file."""
    file = BytesIO()
    Image.fromarray(as_rgb(cell)).save(file, "PNG")
    return file.getvalue()


def pictures_chart(grid: Grid) -> Figure:
    """Return the grid as a chart.

    Raises:
        InputError: without pictures, or if the cells do not fit the names of rows and columns.
    """
    if not grid.rows or not grid.columns:
        raise InputError(f"The grid {grid.name!r} has no pictures to draw: give at least one row and one column.")
    if len(grid.cells) != len(grid.rows) or any(len(row) != len(grid.columns) for row in grid.cells):
        raise InputError(f"The cells of {grid.name!r} must be {len(grid.rows)} rows of {len(grid.columns)}.")
    with house_style():
        figure = Figure(figsize=(1.15 * len(grid.columns) + 0.9, 1.1 * len(grid.rows) + 0.9))
        axes = figure.subplots(len(grid.rows), len(grid.columns), squeeze=False)
        for i, row in enumerate(grid.cells):
            for j, cell in enumerate(row):
                axes[i][j].imshow(as_rgb(cell), interpolation="nearest")
                axes[i][j].set(xticks=[], yticks=[])
                axes[i][j].grid(False)
                if i == 0:
                    axes[i][j].set_title(printable(grid.columns[j]), fontsize=7, color=INK)
                if j == 0:
                    axes[i][j].set_ylabel(printable(grid.rows[i]), fontsize=7)
        figure.suptitle(printable(grid.title), fontsize=10, fontweight="bold")
    return figure
