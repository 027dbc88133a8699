"""Measured ratios: their rows, their comparison with a baseline, and their tables."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

TOLERANCE = 1.2
"""A row is slower if its ratio exceeds the baseline by this factor."""

Ratios = dict[str, float]


@dataclass(frozen=True)
class Row:
    """Something that was measured, relative to something else.

    Attributes:
        group: of rows that share a table.
        name: what was measured.
        beside: what it is divided by.
        values: the ratio in each repeat; above 1 the measured thing costs more. Empty: `missing` says why.
        passes: how often an example passes the network, in words.
        missing: why there is no ratio.
    """

    group: str
    name: str
    beside: str
    values: tuple[float, ...] = ()
    passes: str = ""
    missing: str = ""

    @property
    def key(self) -> str:
        """The name of the row in a baseline."""
        return f"{self.group}: {self.name} / {self.beside}"

    @property
    def ratio(self) -> float:
        """The median of the repeats."""
        return statistics.median(self.values)

    @property
    def cell(self) -> str:
        """The median with the smallest and the largest repeat."""
        if not self.values:
            return self.missing
        return f"{self.ratio:.2f} ({min(self.values):.2f} to {max(self.values):.2f})"


def joined(repeats: Sequence[Sequence[Row]]) -> list[Row]:
    """Return the rows of several repeats as one list, each row with the ratios of all repeats."""
    rows: dict[str, Row] = {}
    for row in (row for repeat in repeats for row in repeat):
        known = rows.get(row.key)
        rows[row.key] = row if known is None else replace(row, values=known.values + row.values)
    return list(rows.values())


def slower(rows: Sequence[Row], baseline: Ratios) -> list[str]:
    """Return a sentence for each row that exceeds its baseline by more than the tolerance.

    Rows without a baseline, and those of the baseline that were not measured, say nothing here.
    """
    return [
        f"slower: {row.key}: {row.ratio / baseline[row.key]:.2f} times the baseline"
        f" ({row.ratio:.2f}, baseline {baseline[row.key]:.2f})"
        for row in rows
        if row.values and row.key in baseline and row.ratio > TOLERANCE * baseline[row.key]
    ]


def unmatched(rows: Sequence[Row], baseline: Ratios) -> list[str]:
    """Return a sentence for each row that is in the baseline or in the measurement, but not in both."""
    measured = {row.key for row in rows if row.values}
    return [f"not measured: {key}" for key in baseline if key not in measured] + [
        f"no baseline: {row.key}" for row in rows if row.values and row.key not in baseline
    ]


def read_baseline(path: Path, kind: str) -> Ratios | None:
    """Return the ratios of a kind of processor, by key; None without any."""
    found: dict[str, Ratios] = json.loads(path.read_text()) if path.exists() else {}
    return found.get(kind)


def write_baseline(path: Path, kind: str, rows: Sequence[Row]) -> None:
    """Write the ratios of a kind of processor; those of other kinds stay."""
    found: dict[str, Ratios] = json.loads(path.read_text()) if path.exists() else {}
    found[kind] = {row.key: round(row.ratio, 3) for row in rows if row.values}
    path.write_text(json.dumps(dict(sorted(found.items())), indent=2) + "\n")


def wide_table(rows: Sequence[Row], first: str, columns: Mapping[str, str]) -> list[str]:
    """Return the lines of a table with a line for each name, and a column for each thing that it is divided by.

    `columns` has the heads of the columns by `Row.beside`.
    """
    cells: dict[str, Ratios | dict[str, str]] = {}
    passes: dict[str, str] = {}
    for row in rows:
        cells.setdefault(row.name, {})[row.beside] = row.cell  # type: ignore[assignment]
        passes[row.name] = passes.get(row.name) or row.passes
    lines = [f"| {first} | {' | '.join(columns.values())} | passes |", "|---" * (len(columns) + 2) + "|"]
    for name, of_name in cells.items():
        shown = " | ".join(str(of_name.get(beside, "")) for beside in columns)
        lines.append(f"| {name} | {shown} | {passes[name]} |")
    return lines


def long_table(rows: Sequence[Row]) -> list[str]:
    """Return the lines of a table with a line for each row."""
    lines = ["| ours | beside | ratio (spread) | passes |", "|---|---|---|---|"]
    return lines + [f"| {row.name} | {row.beside} | {row.cell} | {row.passes} |" for row in rows]
