"""Rows of results as text for a paper, a page or a spreadsheet: LaTeX, Markdown and CSV."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from unperturbed.errors import InputError, hint
from unperturbed.findings import Interval
from unperturbed.reports.card import markdown_table

Format = Literal["latex", "markdown", "csv"]
FORMATS: tuple[Format, ...] = ("latex", "markdown", "csv")
Cell = str | int | float | Interval
_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}"},
}


@dataclass(frozen=True)
class Rows:
    """A table of results.

    Attributes:
        columns: their names.
        cells: row by row; a share with its interval is one cell.
    """

    columns: tuple[str, ...]
    cells: tuple[tuple[Cell, ...], ...]

    def text(self, kind: str) -> str:
        """Return the table as text: "latex" (a tabular for the package booktabs), "markdown" or "csv".

        LaTeX and Markdown have shares in percent, with the interval in brackets; CSV has them as fractions, in three
        columns.

        Raises:
            InputError: for another format.
        """
        if kind == "csv":
            return self._csv()
        if kind not in FORMATS:
            raise InputError(f"There is no format {kind!r} for a table. {hint(kind, FORMATS)}")
        rows = [[_shown(cell) for cell in row] for row in self.cells]
        if kind == "markdown":
            return "\n".join(markdown_table(self.columns, rows)) + "\n"
        lines = [self._latex_row(self.columns), r"\midrule", *map(self._latex_row, rows)]
        alignment = "".join("l" if self._is_text(number) else "r" for number in range(len(self.columns)))
        return (
            "\n".join([rf"\begin{{tabular}}{{{alignment}}}", r"\toprule", *lines, r"\bottomrule", r"\end{tabular}"])
            + "\n"
        )

    def _is_text(self, number: int) -> bool:
        return any(isinstance(row[number], str) for row in self.cells)

    @staticmethod
    def _latex_row(cells: Sequence[str]) -> str:
        return " & ".join("".join(_LATEX.get(character, character) for character in cell) for cell in cells) + r" \\"

    def _csv(self) -> str:
        shares = [any(isinstance(row[number], Interval) for row in self.cells) for number in range(len(self.columns))]
        head = list[str]()
        for name, is_share in zip(self.columns, shares, strict=True):
            head += [name, f"{name}, low", f"{name}, high"] if is_share else [name]
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        for row in self.cells:
            writer.writerow([value for cell in row for value in _values(cell)])
        return file.getvalue()


def _shown(cell: Cell) -> str:
    if isinstance(cell, Interval):
        return f"{100 * cell.value:.1f} [{100 * cell.low:.1f}, {100 * cell.high:.1f}]"
    return f"{cell:.3g}" if isinstance(cell, float) else " ".join(str(cell).split())


def _values(cell: Cell) -> list[str | int | float]:
    """Return the values of a cell for CSV; a text that a spreadsheet would take for a formula begins with a quote."""
    if isinstance(cell, Interval):
        return [cell.value, cell.low, cell.high]
    return [f"'{cell}"] if isinstance(cell, str) and re.match(r"[=+\-@\t\r]", cell) else [cell]
