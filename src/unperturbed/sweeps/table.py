"""The results of a sweep as a table, JSON, Markdown and a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unperturbed.findings import Interval, doubted
from unperturbed.runs import write_json, write_text
from unperturbed.sweeps.rows import SEED, Axis, Combination, Setting, rows_of

HELD_OUT = "robust, held out"
"""The column of the accuracy that chooses a run."""
LABELLED = 12
"""Up to so many points the picture names each; of more, only those that are not dominated."""


@dataclass(frozen=True, eq=False, repr=False)
class Sweep:
    """The results of a sweep so far.

    Attributes:
        value: plain values, as in `sweep.json`.
        columns: of the table.
        cells: its rows.
        notes: remarks on the table.
        picture: clean against robust accuracy; None without evaluated runs.
        settings: the rows, as values.
    """

    value: Mapping[str, Any]
    columns: Sequence[str]
    cells: Sequence[Sequence[str]]
    notes: Sequence[str]
    picture: Path | None
    settings: Sequence[Setting]

    def json(self) -> dict[str, Any]:
        """Return plain values."""
        return dict(self.value)

    def __str__(self) -> str:
        """Return the table and its notes as text."""
        return "\n".join([" | ".join(self.columns), *(" | ".join(row) for row in self.cells), *self.notes])

    def __repr__(self) -> str:
        """Return the number of settings and of evaluated ones."""
        evaluated = sum(setting.evaluated > 0 for setting in self.settings)
        return f"Sweep({len(self.settings)} settings, {evaluated} of them evaluated)"


def write(out: Path, about: Mapping[str, Any], axes: Sequence[Axis], runs: Sequence[Combination]) -> Sweep:
    """Write the results so far as JSON, Markdown and a picture, and return them."""
    from unperturbed.reports.charts.style import save_chart
    from unperturbed.reports.charts.trade_off import trade_off_chart

    rows = rows_of(axes, runs)
    value = {**about, "rows": [row.json() for row in rows], "runs": [run.json() for run in runs]}
    write_json(out / "sweep.json", value)
    columns, cells = cells_of(axes, rows)
    title, notes = f"{' and '.join(axis.option for axis in axes)}, suite {about['suite']}", _notes(about, axes, rows)
    write_text(out / "sweep.md", _markdown(title, columns, cells, notes, runs))
    picture = out / "sweep.svg"
    points = [row.point for row in rows if row.point is not None]
    if len(points) > LABELLED:
        points = [replace(point, name="") if point.dominated else point for point in points]
    if points:
        threats = sorted({row.comparable[0] for row in rows if row.comparable})
        under = threats[0] if len(threats) == 1 else "each its own threat"
        axis_names = [axis.name for axis in axes if axis.option != SEED]
        labels = f", labelled by {' and '.join(axis_names)}" if axis_names else ""
        caption = f"{under}, {about['suite']}{labels}"
        save_chart(trade_off_chart(points, "Clean against robust accuracy", caption), picture)
    else:
        picture.unlink(missing_ok=True)
    return Sweep(value, columns, cells, notes, picture if points else None, rows)


def cells_of(axes: Sequence[Axis], rows: Sequence[Setting]) -> tuple[list[str], list[list[str]]]:
    """Return the table's columns and rows, without empty columns."""
    axis_names = [axis.name for axis in axes if axis.option != SEED]
    several = any(axis.option == SEED for axis in axes)
    threats = len({row.comparable[0] for row in rows if row.comparable}) > 1
    columns = [*axis_names, *(["threat"] if threats else []), "epochs", HELD_OUT, "clean", "robust",
               *(["over seeds, lowest to highest"] if several else []), "training", "conclusions", ""]  # fmt: skip
    cells = []
    for row in rows:
        ranges = ""
        if row.clean is not None and row.robust is not None:
            ranges = (
                f"clean {row.clean[0]:.1%} to {row.clean[1]:.1%}, robust {row.robust[0]:.1%} to {row.robust[1]:.1%}"
            )
        point, validation = row.point, row.validation
        failed = f"{len(row.problems)} of {row.runs} failed" if row.runs > 1 else "failed"
        waiting = row.runs - row.evaluated - len(row.problems)
        remarks = [
            *(["chosen"] if row.chosen else []),
            *(["stopped"] if row.stopped else []),
            *(["dominated"] if point is not None and point.dominated else []),
            *([failed] if row.problems else []),
            *([f"{waiting} to come"] if waiting and not row.stopped else []),
        ]  # fmt: skip
        cells.append(
            [
                *row.values.values(),
                *([row.comparable[0] if row.comparable else ""] if threats else []),
                *(["", ""] if validation is None else [str(validation.epochs), f"{validation.robust.value:.1%}"]),
                *(["", ""] if point is None else [_percent(point.clean), f"{point.robust}{doubted(row.doubts)}"]),
                *([ranges] if several else []),
                "" if row.seconds is None else f"{row.seconds:.0f} s",
                "; ".join(row.conclusions),
                "; ".join(remarks),
            ]
        )
    shown = [index for index, column in enumerate(columns)
            if column in (*axis_names, "clean", "robust") or any(row[index] for row in cells)]  # fmt: skip
    return [columns[index] for index in shown], [[row[index] for index in shown] for row in cells]


def _percent(share: Interval) -> str:
    return f"{share.value:.1%} [{share.low:.1%}, {share.high:.1%}]"


def _notes(about: Mapping[str, Any], axes: Sequence[Axis], rows: Sequence[Setting]) -> list[str]:
    """Return remarks on the table."""
    threats = sorted({row.comparable[0] for row in rows if row.comparable})
    notes = [_choice(row, about["chosen"]["run"]) for row in rows if row.chosen]
    notes += [f"Suite {about['suite']}: {about['note']}. Under {', '.join(threats) or 'no threat yet'}."]
    if repeated := about.get("search", {}).get("repeated"):
        notes.append(f"{repeated} further trials had the values of earlier ones, and were not trained again.")
    if any(row.stopped for row in rows):
        notes.append("Stopped: after these epochs a third of the runs was better on held-out training examples.")
    if any(row.point is not None and row.point.dominated for row in rows):
        notes.append(
            "Dominated: another row is at least as good in both accuracies, and better in one; by the means alone."
        )
    if len({row.comparable for row in rows if row.comparable}) > 1:
        notes.append("Rows under different threats, or on different test examples, are not compared.")
    if any(axis.option == SEED for axis in axes):
        notes.append(
            "Means over seeds; n counts the examples of all of them, and the intervals cover examples and seeds."
        )
    for row in rows:
        notes += [f"Failed: {problem}" for problem in row.problems]
    return notes


def _choice(row: Setting, run: str) -> str:
    """Return the headline of a search: the chosen run, the accuracy that chose it, and those on the test split."""
    assert row.validation is not None
    chosen, validation = ", ".join(f"{name}={value}" for name, value in row.values.items()), row.validation
    limit = " among those that meet the limit" if validation.feasible else ""
    tested = "is not evaluated"
    if row.point is not None:
        tested = f"has clean {_percent(row.point.clean)} and robust {row.point.robust}"
    return (
        f"Chosen: {chosen} ({run}), with the highest robust accuracy on held-out training examples{limit}, "
        f"{_percent(validation.robust)} of {validation.robust.n} (ten steps: a quick look). The test split has no part "
        f"in the choice; there this run {tested}."
    )


def _markdown(
    title: str,
    columns: Sequence[str],
    cells: Sequence[Sequence[str]],
    notes: Sequence[str],
    runs: Sequence[Combination],
) -> str:
    """Return the page that accompanies the chart."""

    def line(row: Sequence[str]) -> str:
        return f"| {' | '.join(' '.join(cell.split()).replace('|', chr(92) + '|') for cell in row)} |"

    conclusions = [(run, text) for run in runs if run.trained is not None for text in run.trained["conclusions"]]
    parts = [
        f"# Sweep over {title}",
        "\n".join([line(columns), line(["---"] * len(columns)), *map(line, cells)]),
        *notes,
        "\n".join(f"- {run.name}: {text}" for run, text in conclusions),
        "![Clean against robust accuracy](sweep.svg)" if any(run.outcome for run in runs) else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
