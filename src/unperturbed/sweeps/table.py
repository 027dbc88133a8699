"""What a sweep shows: a row for each combination of values, as a table, JSON, Markdown and a picture."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unperturbed.findings import Interval, doubted
from unperturbed.runs import write_json, write_text
from unperturbed.statistics.domination import Point, mark_dominated

SEED = "seed"
"""The option whose values are summed up in one row."""


@dataclass(frozen=True)
class Axis:
    """An option of training and the values that it takes, as they were written.

    Attributes:
        option: as `train` knows it, but for `train-examples`.
        name: what folders and tables call it.
        values: of the option.
    """

    option: str
    name: str
    values: tuple[str, ...]


@dataclass(eq=False)
class Combination:
    """One combination of values, and what has come of it so far.

    Attributes:
        values: by the names of their axes.
        folder: the run folder.
        train: trains it, or resumes, and returns the result as `train --json` prints it.
        evaluate: evaluates it, or reads the stored evaluation, and returns the result as `evaluate --json` prints it.
        trained: the result of training; None: not yet.
        outcome: the result of the evaluation; None: not yet.
        error: why it failed.
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
        """What it is called."""
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
    """The runs with the same values but for the seed, summed up: means over those that were evaluated.

    Attributes:
        values: by the names of their axes, without the seed.
        runs: how many there are.
        point: their accuracies; None: none is evaluated.
        clean: lowest and highest clean accuracy of a run.
        robust: likewise, under attack.
        examples: that each run was evaluated on.
        seconds: of training, a run.
        conclusions: what the method says of its end, shortened, with the number of runs that it says it of, and
            whether weights of an earlier epoch, where such are kept, met its limit.
        problems: why runs failed.
        evaluated: how many runs the point is of.
        comparable: what must be the same in two rows that are compared: threat and test examples.
        doubts: why the robust accuracy of one of the runs is not to be believed.
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
        """Return plain values; `n` counts the examples of all the runs."""
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


@dataclass(frozen=True, eq=False)
class Sweep:
    """What a sweep has found so far.

    Attributes:
        value: plain values, as `sweep.json` holds them.
        columns: of the table.
        cells: its rows.
        notes: what a reader of the table must know.
        picture: clean against robust accuracy; None: no run is evaluated.
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


def write(out: Path, about: Mapping[str, Any], axes: Sequence[Axis], runs: Sequence[Combination]) -> Sweep:
    """Write what is known so far as JSON, Markdown and a picture, and return it."""
    from unperturbed.reports.charts.style import save_chart
    from unperturbed.reports.charts.trade_off import trade_off_chart

    rows = rows_of(axes, runs)
    value = {**about, "rows": [row.json() for row in rows], "runs": [each.json() for each in runs]}
    write_json(out / "sweep.json", value)
    columns, cells = cells_of(axes, rows)
    title, notes = f"{' and '.join(axis.option for axis in axes)}, suite {about['suite']}", _notes(about, axes, rows)
    write_text(out / "sweep.md", _markdown(title, columns, cells, notes, runs))
    picture = out / "sweep.svg"
    points = [row.point for row in rows if row.point is not None]
    if points:
        threats = sorted({row.comparable[0] for row in rows if row.comparable})
        under = threats[0] if len(threats) == 1 else "each its own threat"
        named = [axis.name for axis in axes if axis.option != SEED]
        labels = f", labelled by {' and '.join(named)}" if named else ""
        caption = f"{under}, {about['suite']}{labels}"
        save_chart(trade_off_chart(points, "Clean against robust accuracy", caption), picture)
    else:
        picture.unlink(missing_ok=True)
    return Sweep(value, columns, cells, notes, picture if points else None, rows)


def rows_of(axes: Sequence[Axis], runs: Sequence[Combination]) -> list[Setting]:
    """Return the runs, summed up over the seeds, the dominated ones marked among those that can be compared."""
    seeds = [axis.name for axis in axes if axis.option == SEED]
    groups: dict[tuple[str, ...], list[Combination]] = {}
    for each in runs:
        groups.setdefault(tuple(value for name, value in each.values.items() if name not in seeds), []).append(each)
    rows = [_row([axis for axis in axes if axis.name not in seeds], group) for group in groups.values()]
    marked: dict[int, Setting] = {}
    for comparable in {row.comparable for row in rows}:
        places = [place for place, row in enumerate(rows) if row.comparable == comparable and row.point is not None]
        points = [point for row in (rows[place] for place in places) if (point := row.point) is not None]
        for place, point in zip(places, mark_dominated(points), strict=True):
            marked[place] = replace(rows[place], point=point)
    return [marked.get(place, row) for place, row in enumerate(rows)]


def _row(axes: Sequence[Axis], group: Sequence[Combination]) -> Setting:
    from unperturbed.statistics.intervals import wilson_over_runs

    values = {axis.name: group[0].values[axis.name] for axis in axes}
    problems = [f"{each.name}: {each.error}" for each in group if each.error]
    done = [(each.trained, each.outcome) for each in group if each.trained is not None and each.outcome is not None]
    if not done:
        return Setting(values, len(group), problems=problems)
    trained, outcomes = [each for each, _ in done], [each for _, each in done]
    unknown = [each["counts"]["unknown"] for each in outcomes]
    clean, robust = (
        [Interval(each[value], each[interval][0], each[interval][1], each["n"]) for each in outcomes]
        for value, interval in (("clean_accuracy", "clean_interval"), ("robust_accuracy", "interval"))
    )
    name = ", ".join([*values.values(), *_missed(trained)])
    return Setting(
        values,
        len(group),
        # An example whose clean logits are not finite is unknown, so that there are no more of them than this.
        Point(name, wilson_over_runs(clean, unknown), wilson_over_runs(robust, unknown)),
        _range(clean),
        _range(robust),
        outcomes[0]["n"],
        sum(each["seconds"] for each in trained) / len(trained),
        _shortened([[_short(text, each) for text in each["conclusions"]] for each in trained]),
        problems,
        len(done),
        (outcomes[0]["threat"], outcomes[0]["environment"]["data"]),
        tuple(dict.fromkeys(text for each in outcomes for text in each.get("doubts", ()))),
    )


def _missed(trained: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what a picture must say of runs whose weights did not meet their limit, if there are any."""
    missed = sum(each["feasible"] is False for each in trained)
    some = f" by {missed} of {len(trained)}" if missed < len(trained) else ""
    return [f"limit not met{some}"] if missed else []


def _range(values: Sequence[Interval]) -> tuple[float, float]:
    return min(each.value for each in values), max(each.value for each in values)


def _shortened(conclusions: Sequence[Sequence[str]]) -> list[str]:
    """Return what several runs conclude, each text once, and of how many of them where not of all."""
    short = [text for texts in conclusions for text in texts]
    counts = {text: short.count(text) for text in short}
    return [text if count == len(conclusions) else f"{text} ({count} of {len(conclusions)})"
            for text, count in counts.items()]  # fmt: skip


def _short(text: str, trained: Mapping[str, Any]) -> str:
    """Return a conclusion up to its colon, which is of the last epoch, and what holds of the epoch that is kept."""
    short = text.partition(":")[0]
    kept = {True: ", kept weights feasible", False: ", kept weights not feasible", None: ""}[trained["feasible"]]
    return short if trained["best_epoch"] == trained["epochs"] else short + kept


def cells_of(axes: Sequence[Axis], rows: Sequence[Setting]) -> tuple[list[str], list[list[str]]]:
    """Return the table's columns and rows, without columns that would be empty."""
    named = [axis.name for axis in axes if axis.option != SEED]
    several = any(axis.option == SEED for axis in axes)
    threats = len({row.comparable[0] for row in rows if row.comparable}) > 1
    columns = [*named, *(["threat"] if threats else []), "clean", "robust",
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
    kept = [place for place, column in enumerate(columns)
            if column in (*named, "clean", "robust") or any(row[place] for row in cells)]  # fmt: skip
    return [columns[place] for place in kept], [[row[place] for place in kept] for row in cells]


def _percent(share: Interval) -> str:
    return f"{share.value:.1%} [{share.low:.1%}, {share.high:.1%}]"


def _notes(about: Mapping[str, Any], axes: Sequence[Axis], rows: Sequence[Setting]) -> list[str]:
    """Return what a reader of the table must know."""
    threats = sorted({row.comparable[0] for row in rows if row.comparable})
    notes = [f"Suite {about['suite']}: {about['note']}. Under {', '.join(threats) or 'no threat yet'}."]
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

    conclusions = [(each, text) for each in runs if each.trained is not None for text in each.trained["conclusions"]]
    parts = [
        f"# Sweep over {title}",
        "\n".join([line(columns), line(["---"] * len(columns)), *map(line, cells)]),
        *notes,
        "\n".join(f"- {each.name}: {text}" for each, text in conclusions),
        "![Clean against robust accuracy](sweep.svg)" if any(each.outcome for each in runs) else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"
