"""The house style of all charts: colours, fonts, and reproducible files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from cycler import cycler
from matplotlib.figure import Figure

from unperturbed.errors import InputError
from unperturbed.runs import write_atomically

INK = "#30363d"
"""The colour of text and axes, on white."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""The colours of lines and points, in order: safe for colour-blind readers (Okabe and Ito 2008)."""
FORMATS = (".svg", ".pdf", ".png")
STYLE: Any = {
    "axes.edgecolor": INK,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "font.family": ["sans-serif"],
    "font.size": 9,
    "grid.alpha": 0.35,
    "grid.color": INK,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "savefig.facecolor": "white",
    "svg.fonttype": "none",
    "svg.hashsalt": "unperturbed",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
}
"""Names come from users, and may contain a dollar sign (`text.parse_math`)."""


@contextmanager
def house_style() -> Iterator[None]:
    """Draw and save in the house style, independent of the user's settings."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def printable(text: str) -> str:
    """Return a text without characters that file formats do not support."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def in_legend(name: str) -> str:
    """Return a name for a legend; Matplotlib leaves out names that begin with an underscore, such as the empty one."""
    text = printable(name)
    return f" {text}" if text.startswith("_") else text or "_"


def headed(figure: Figure, title: str, caption: str) -> None:
    """Write the title above a figure, and the caption in smaller letters below the title."""
    figure.suptitle(printable(title), fontsize=11, fontweight="bold")
    if caption and figure.axes:
        figure.axes[0].set_title(printable(caption), fontsize=8)


def save_chart(figure: Figure, path: Path) -> None:
    """Write a chart atomically, as SVG, PDF or PNG by the suffix of `path`.

    Raises:
        InputError: for another suffix.
    """
    if path.suffix not in FORMATS:
        raise InputError(f"A chart cannot be written as {path.name!r}: give a name that ends in {', '.join(FORMATS)}.")
    undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {"Software": None}}[path.suffix]

    def write(temporary: Path) -> None:
        figure.savefig(temporary, format=path.suffix[1:], dpi=200, metadata=undated)

    with house_style():
        write_atomically(path, write)
