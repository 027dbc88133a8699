"""The runs of a sweep and the rows of its table: one row for each combination of values."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unperturbed.findings import Interval
from unperturbed.statistics.domination import Point, mark_dominated

log = logging.getLogger("unperturbed")
Result = tuple[Mapping[str, Any] | None, Mapping[str, Any] | None, str | None]
"""The results of training and of evaluation, and the reason of a failure."""
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


@dataclass(frozen=True)
class Validation:
    """Accuracies of the kept weights on held-out training examples after some epochs.

    Attributes:
        epochs: of training.
        clean: clean accuracy.
        robust: accuracy under ten steps.
        feasible: whether the weights met the method's limit; None without a limit.
    """

    epochs: int
    clean: Interval
    robust: Interval
    feasible: bool | None = None

    @property
    def rank(self) -> tuple[bool, float, float]:
        """The criteria of the choice in their order: the method's limit, robust accuracy, clean accuracy."""
        return self.feasible is not False, self.robust.value, self.clean.value

    def json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "epochs": self.epochs,
            "clean_accuracy": self.clean.value,
            "robust_accuracy": self.robust.value,
            "interval": [self.robust.low, self.robust.high],
            "n": self.robust.n,
        }


@dataclass(eq=False)
class Combination:
    """One combination of values, with its results so far.

    Attributes:
        values: by the names of their axes.
        folder: the run folder.
        train: trains it until the end of an epoch (None: the last), or resumes, and returns the result in the form of
            `train --json`.
        evaluate: evaluates it, or reads the stored evaluation, and returns the result in the form of `evaluate --json`.
        trained: the result of training; None: not yet.
        outcome: the result of the evaluation; None: not yet.
        error: the reason of its failure.
        validation: of a trial, its last accuracies on held-out training examples.
        stopped: whether other trials were better after these epochs, so that it is not trained further.
        chosen: whether it is the best trial on held-out training examples.
    """

    values: Mapping[str, str]
    folder: Path
    train: Callable[[int | None], Mapping[str, Any]]
    evaluate: Callable[[], Mapping[str, Any]]
    trained: Mapping[str, Any] | None = None
    outcome: Mapping[str, Any] | None = None
    error: str | None = None
    validation: Validation | None = None
    stopped: bool = False
    chosen: bool = False

    def take(self, result: Result) -> None:
        """Keep the result of the run, and report a failure."""
        self.trained, self.outcome, self.error = result
        if self.error:
            log.error("%s failed: %s", self.name, self.error)

    @property
    def name(self) -> str:
        """The name of the combination."""
        return ", ".join(f"{name}={value}" for name, value in self.values.items())

    def json(self) -> dict[str, Any]:
        """Return plain values."""
        status = "failed" if self.error else "done" if self.outcome else "stopped" if self.stopped else "waiting"
        value: dict[str, Any] = {"values": dict(self.values), "run": str(self.folder), "status": status}
        value["error"] = self.error
        if self.trained is not None:
            value |= {key: self.trained[key] for key in ("seconds", "epochs", "best_epoch", "conclusions", "feasible")}
        if self.validation is not None:
            value |= {"validation": self.validation.json(), "chosen": self.chosen}
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
        validation: of a trial, its last accuracies on held-out training examples.
        stopped: whether the trial is not trained further.
        chosen: whether it is the best trial on held-out training examples.
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
    validation: Validation | None = None
    stopped: bool = False
    chosen: bool = False

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
        if self.validation is not None:
            value |= {"validation": self.validation.json(), "stopped": self.stopped, "chosen": self.chosen}
        return value | {"conclusions": list(self.conclusions), "problems": list(self.problems)}


def rows_of(axes: Sequence[Axis], runs: Sequence[Combination]) -> list[Setting]:
    """Return one row per combination without the seed, with dominated ones marked among comparable rows."""
    seeds = [axis.name for axis in axes if axis.option == SEED]
    groups: dict[tuple[str, ...], list[Combination]] = {}
    for combination in runs:
        groups.setdefault(tuple(value for name, value in combination.values.items() if name not in seeds), []).append(
            combination
        )
    rows = [_row([axis for axis in axes if axis.name not in seeds], group) for group in groups.values()]
    rows = [
        replace(row, validation=group[0].validation, stopped=group[0].stopped, chosen=group[0].chosen)
        for row, group in zip(rows, groups.values(), strict=True)
    ]
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
