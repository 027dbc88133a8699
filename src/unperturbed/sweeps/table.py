"""The results of a sweep: one row for each combination of values, as a table, JSON, Markdown and a picture."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unperturbed.findings import Interval, doubted
from unperturbed.runs import write_json, write_text
from unperturbed.statistics.domination import Point, mark_dominated

SEED = "seed"
"""The option whose values share one row."""


@dataclass(frozen=True)
class Axis:
    """An option of training and its values, as written.

    Attributes:
        option: its name in `train`, except for `train-examples`.
        name: its name in folders and tables.
        values: of the option.
    """

    option: str
    name: str
    values: tuple[str, ...]


@dataclass(eq=False)
class Combination:
    """One combination of values, with its results so far.

    Attributes:
        values: by the names of their axes.
        folder: the run folder.
        train: trains it, or resumes, and returns the result in the form of `train --json`.
        evaluate: evaluates it, or reads the stored evaluation, and returns the result in the form of `evaluate --json`.
        trained: the result of training; None: not yet.
        outcome: the result of the evaluation; None: not yet.
        error: the reason of its failure.
    """

    values: Mapping[str, str]
    folder: Path
    train: Callable[[], Mapping[str, Any]]
    evaluate: Callable[[], Mapping[str, Any]]
    trained: Mapping[str, Any] | None = None
    outcome: Mapping[str, Any] | None = None
    error: str | None = None

    @property
    def name(self) -> str:
        """The name of the combination."""
        return ", ".join(f"{name}={value}" for name, value in self.values.items())

    def json(self) -> dict[str, Any]:
        """Return plain values."""
        status = "failed" if self.error else "done" if self.outcome else "waiting"
        value = {"values": dict(self.values), "run": str(self.folder), "status": status, "error": self.error}
        if self.trained is not None:
            value |= {key: self.trained[key] for key in ("seconds", "epochs", "best_epoch", "conclusions", "feasible")}
        return value | {"evaluation": self.outcome}


@dataclass(frozen=True)
class Setting:
    """The runs with the same values except for the seed: means over the evaluated ones.

    Attributes:
        values: by the names of their axes, without the seed.
        runs: their number.
        point: their accuracies; None without evaluated runs.
        clean: lowest and highest clean accuracy of a run.
        robust: likewise, under attack.
        examples: number of examples of each evaluation.
        seconds: of training, per run.
        conclusions: the method's conclusions, shortened, with the number of their runs, and whether kept weights of an
            earlier epoch met the limit.
        problems: reasons of failures.
        evaluated: number of runs behind the point.
        comparable: threat and test examples, which must be equal in compared rows.
        doubts: reasons why the robust accuracy of one of the runs is not credible.
    """

    values: Mapping[str, str]
    runs: int
    point: Point | None = None
    clean: tuple[float, float] | None = None
    robust: tuple[float, float] | None = None
    examples: int | None = None
    seconds: float | None = None
    conclusions: Sequence[str] = ()
    problems: Sequence[str] = ()
    evaluated: int = 0
    comparable: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    def json(self) -> dict[str, Any]:
        """Return plain values; `n` counts the examples of all runs."""
        value: dict[str, Any] = {"values": dict(self.values), "runs": self.runs, "evaluated": self.evaluated}
        if self.point is not None:
            clean, robust = self.point.clean, self.point.robust
            value |= {
                "threat": self.comparable[0],
                "examples": self.examples,
                "n": robust.n,
                "clean_accuracy": clean.value,
                "clean_interval": [clean.low, clean.high],
                "clean_range": self.clean,
                "robust_accuracy": robust.value,
                "interval": [robust.low, robust.high],
                "robust_range": self.robust,
                "doubts": list(self.doubts),
                "dominated": self.point.dominated,
                "seconds": self.seconds,
            }
        return value | {"conclusions": list(self.conclusions), "problems": list(self.problems)}


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


def rows_of(axes: Sequence[Axis], runs: Sequence[Combination]) -> list[Setting]:
    """Return one row per combination without the seed, with dominated ones marked among comparable rows."""
    seeds = [axis.name for axis in axes if axis.option == SEED]
    groups: dict[tuple[str, ...], list[Combination]] = {}
    for combination in runs:
        groups.setdefault(tuple(value for name, value in combination.values.items() if name not in seeds), []).append(
            combination
        )
    rows = [_row([axis for axis in axes if axis.name not in seeds], group) for group in groups.values()]
    marked: dict[int, Setting] = {}
    for comparable in {row.comparable for row in rows}:
        indices = [index for index, row in enumerate(rows) if row.comparable == comparable and row.point is not None]
        points = [point for row in (rows[index] for index in indices) if (point := row.point) is not None]
        for index, point in zip(indices, mark_dominated(points), strict=True):
            marked[index] = replace(rows[index], point=point)
    return [marked.get(index, row) for index, row in enumerate(rows)]


def _row(axes: Sequence[Axis], group: Sequence[Combination]) -> Setting:
    from unperturbed.statistics.intervals import wilson_over_runs

    values = {axis.name: group[0].values[axis.name] for axis in axes}
    problems = [f"{entry.name}: {entry.error}" for entry in group if entry.error]
    finished = [
        (entry.trained, entry.outcome) for entry in group if entry.trained is not None and entry.outcome is not None
    ]
    if not finished:
        return Setting(values, len(group), problems=problems)
    trained, outcomes = [entry for entry, _ in finished], [entry for _, entry in finished]
    unknown = [entry["counts"]["unknown"] for entry in outcomes]
    clean, robust = (
        [Interval(entry[value], entry[interval][0], entry[interval][1], entry["n"]) for entry in outcomes]
        for value, interval in (("clean_accuracy", "clean_interval"), ("robust_accuracy", "interval"))
    )
    name = ", ".join([*values.values(), *_missed_limits(trained)])
    return Setting(
        values,
        len(group),
        # An example with clean logits that are not finite is unknown, so their number is at most this.
        Point(name, wilson_over_runs(clean, unknown), wilson_over_runs(robust, unknown)),
        _range(clean),
        _range(robust),
        outcomes[0]["n"],
        sum(entry["seconds"] for entry in trained) / len(trained),
        _shortened([[_short(text, entry) for text in entry["conclusions"]] for entry in trained]),
        problems,
        len(finished),
        (outcomes[0]["threat"], outcomes[0]["environment"]["data"]),
        tuple(dict.fromkeys(text for entry in outcomes for text in entry.get("doubts", ()))),
    )


def _missed_limits(trained: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the picture's remark on runs whose weights did not meet their limit, if there are any."""
    count = sum(result["feasible"] is False for result in trained)
    of_all = f" by {count} of {len(trained)}" if count < len(trained) else ""
    return [f"limit not met{of_all}"] if count else []


def _range(values: Sequence[Interval]) -> tuple[float, float]:
    return min(interval.value for interval in values), max(interval.value for interval in values)


def _shortened(conclusions: Sequence[Sequence[str]]) -> list[str]:
    """Return the distinct conclusions of several runs, with their numbers of runs if not all."""
    short = [text for texts in conclusions for text in texts]
    counts = {text: short.count(text) for text in short}
    return [text if count == len(conclusions) else f"{text} ({count} of {len(conclusions)})"
            for text, count in counts.items()]  # fmt: skip


def _short(text: str, trained: Mapping[str, Any]) -> str:
    """Return a conclusion up to its colon, on the last epoch, and a remark on the kept epoch."""
    short = text.partition(":")[0]
    suffix = {True: ", kept weights feasible", False: ", kept weights not feasible", None: ""}[trained["feasible"]]
    return short if trained["best_epoch"] == trained["epochs"] else short + suffix


def cells_of(axes: Sequence[Axis], rows: Sequence[Setting]) -> tuple[list[str], list[list[str]]]:
    """Return the table's columns and rows, without empty columns."""
    axis_names = [axis.name for axis in axes if axis.option != SEED]
    several = any(axis.option == SEED for axis in axes)
    threats = len({row.comparable[0] for row in rows if row.comparable}) > 1
    columns = [*axis_names, *(["threat"] if threats else []), "clean", "robust",
               *(["over seeds, lowest to highest"] if several else []), "training", "conclusions", ""]  # fmt: skip
    cells = []
    for row in rows:
        ranges = ""
        if row.clean is not None and row.robust is not None:
            ranges = (
                f"clean {row.clean[0]:.1%} to {row.clean[1]:.1%}, robust {row.robust[0]:.1%} to {row.robust[1]:.1%}"
            )
        point = row.point
        failed = f"{len(row.problems)} of {row.runs} failed" if row.runs > 1 else "failed"
        remarks = [
            *(["dominated"] if point is not None and point.dominated else []),
            *([failed] if row.problems else []),
            *([f"{waiting} to come"] if (waiting := row.runs - row.evaluated - len(row.problems)) else []),
        ]  # fmt: skip
        cells.append(
            [
                *row.values.values(),
                *([row.comparable[0] if row.comparable else ""] if threats else []),
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
    notes = [f"Suite {about['suite']}: {about['note']}. Under {', '.join(threats) or 'no threat yet'}."]
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
