"""The runs of a sweep: one for each combination of values, trained and evaluated by an engine."""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from unperturbed.engines.base import Engine, Keep, Report, Unit
from unperturbed.engines.by_name import find_engine
from unperturbed.engines.local import Local
from unperturbed.errors import InputError, RunError
from unperturbed.evaluation.measurement import LOADED
from unperturbed.findings import Progress, silent
from unperturbed.runs.files import CONFIG
from unperturbed.runs.lock import PATIENCE, InUseError, locked
from unperturbed.runs.verify import read_object
from unperturbed.sweeps.ranges import Range
from unperturbed.sweeps.rows import SEED, Axis, Combination, Result
from unperturbed.sweeps.table import Sweep, write

Make = Callable[[Mapping[str, str], Path], Combination]
"""A function from values (by the options of their axes) and a run folder to the combination."""
LOST = PATIENCE + 60.0
"""Seconds after which the lock of a lost worker, perhaps on another machine, is free at the latest."""
AGAIN = 1.0
"""Seconds between two tries to get a lock."""


def make_axes(over: Sequence[tuple[str, Sequence[str]]]) -> list[Axis]:
    """Return the axes of these options and values, in the order that names folders.

    Raises:
        InputError: for an option given twice, and values given twice.
    """
    for option, values in over:
        if not values or len(set(values)) < len(values):
            raise InputError(f"--over {option}={','.join(values)} names the same value twice, or none.")
    if len({option for option, _ in over}) < len(over):
        raise InputError(f"--over is given twice for {over[0][0]}: list all its values in one.")
    short = [option.rpartition(".")[2].replace("-", "_") for option, _ in over]
    long = [option.replace("-", "_") for option, _ in over]
    names = short if len(set(short)) == len(short) else long
    axes = [Axis(option, name, tuple(values)) for (option, values), name in zip(over, names, strict=True)]
    return sorted(axes, key=lambda axis: (axis.option == SEED, axis.name))


def check_grid(axes: Sequence[Axis], ranges: Mapping[str, Range]) -> None:
    """Raise InputError for another number of options than a table without a search takes, and for a range."""
    if not 1 <= len(axes) <= 2:
        raise InputError(
            f"The sweep is over {len(axes)} options, but must be over one option or two; a search (tpe) takes more."
        )
    if ranges:
        option, values = next(iter(ranges.items()))
        raise InputError(f"--over {option}={values} is a range: search in it by --search tpe, or list values.")


def all_values(axes: Sequence[Axis]) -> list[dict[str, str]]:
    """Return the values of each combination, by option."""
    options = [axis.option for axis in axes]
    return [dict(zip(options, values, strict=True)) for values in product(*(axis.values for axis in axes))]


def folder_name(axes: Sequence[Axis], values: Mapping[str, str]) -> str:
    """Return the name of the run folder of a combination with these values, by option."""
    return ",".join(f"{axis.name}={re.sub(r'[^A-Za-z0-9.+_-]+', '-', values[axis.option])}" for axis in axes)


def combine(axes: Sequence[Axis], out: Path, make: Make) -> list[Combination]:
    """Return one combination for each choice of a value per axis.

    Raises:
        InputError: if two of them would have the same folder.
    """
    combinations: dict[str, Combination] = {}
    for values in all_values(axes):
        name = folder_name(axes, values)
        combination = make(values, out / name)
        if name in combinations:
            raise InputError(
                f"--over: {combinations[name].name} and {combination.name} would have the same run folder, {name}."
            )
        combinations[name] = combination
    return list(combinations.values())


def check_no_run(out: Path) -> None:
    """Raise InputError for a run folder."""
    if (out / CONFIG).exists():
        raise InputError(f"{out} is a run folder: give another --out, a folder for the run folders of the sweep.")


def check_folder(out: Path, axes: Sequence[Axis]) -> None:
    """Raise InputError for a run folder, and for the folder of a search or of a sweep over other options."""
    check_no_run(out)
    if (out / "search.json").exists():
        raise InputError(f"{out} holds a search: give another --out, or the options of that search.")
    if not (out / "sweep.json").exists():
        return
    try:
        earlier = list(dict(read_object(out / "sweep.json")["over"]))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{out / 'sweep.json'} is damaged: delete it, or give another --out.") from error
    options = [axis.option for axis in axes]
    if earlier != options:
        raise InputError(
            f"{out} holds a sweep over {' and '.join(earlier)}, not over {' and '.join(options)}: give another --out."
        )


def run_all(
    out: Path,
    axes: Sequence[Axis],
    combinations: Sequence[Combination],
    suite: Mapping[str, str],
    progress: Progress = silent,
    engine: str | Engine | None = None,
) -> Sweep:
    """Train and evaluate each unfinished combination, and write the table after each.

    A failed run is an entry of the table, and the others continue.

    Args:
        out: the folder of the run folders, which the workers of an engine write.
        axes: the options and their values.
        combinations: of the values.
        suite: has its `suite` and `note`.
        progress: called with the number of runs that have begun.
        engine: executes the runs; None: this process, one after the other.

    Raises:
        InputError: if an existing run folder has other options, before any training.
    """
    about = {"over": {axis.option: list(axis.values) for axis in axes}, **suite, "figure": str(out / "sweep.svg")}
    engine, total = find_engine(engine), len(combinations)
    begun = [combination for combination in combinations if combination.folder.exists()]
    new = [combination for combination in combinations if not combination.folder.exists()]
    patience = 0.0 if isinstance(engine, Local) else LOST
    units = [
        Unit(number, 1, TrainingRun(combination, number < len(begun), patience))
        for number, combination in enumerate([*begun, *new])
    ]

    def report(finished: float, text: str) -> None:
        progress(min(finished + engine.workers, total), total, text)

    with locked(out), resumable(out):
        for ended, (number, result) in enumerate(engine.map(units, report), 1):
            [*begun, *new][number].take(result)
            if ended >= len(begun):
                swept = write(out, about, axes, combinations)
    return swept


@contextmanager
def resumable(out: Path) -> Iterator[None]:
    """Add a note on resuming to an interruption of this block."""
    try:
        yield
    except (KeyboardInterrupt, OSError) as error:
        error.__notes__ = [f"Finished runs are kept in {out}. Run the same command again to resume."]
        raise


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """The training and the evaluation of one combination, which resume by the files of its run folder."""

    combination: Combination
    is_begun: bool
    """Whether its folder exists: if it has other options, the error is raised."""
    patience: float
    """The seconds to wait for the lock of a run folder, which a lost worker may hold."""
    until: int | None = None
    """The last epoch to train, after which there is no evaluation; None: the whole run."""

    def __call__(self, begun: None, keep: Keep, report: Report) -> Result:
        """Return the results of training and evaluation, and the reason of a failure."""
        combination, trained = self.combination, None
        report(0.0, combination.name)
        try:
            trained = self._unlocked(partial(combination.train, self.until))
            if self.until is not None:
                return trained, None, None
            return trained, _without_loading(self._unlocked(combination.evaluate)), None
        except (RuntimeError, ValueError) as error:  # also errors of PyTorch: the other runs may succeed
            if isinstance(error, InputError) and self.is_begun:
                raise
            expected = isinstance(error, InputError | RunError)
            return trained, None, str(error) if expected else f"{type(error).__name__}: {error}"

    def _unlocked(self, work: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        """Return the result of the work, which begins when no other process holds the lock of the folder."""
        deadline = time.monotonic() + self.patience
        while True:
            try:
                return work()
            except InUseError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(AGAIN)


def _without_loading(outcome: Mapping[str, Any]) -> dict[str, Any]:
    """Return an outcome without the warning of an earlier call, so that a resumed sweep has the same table."""
    return {**outcome, "warnings": [text for text in outcome["warnings"] if not text.startswith(LOADED)]}


def as_text(value: Any) -> str:
    """Return a value of an axis as text for tables and folders."""
    return value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)
