"""The runs of a sweep: one for each combination of values, trained and evaluated by an engine."""

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
from unperturbed.sweeps.table import SEED, Axis, Combination, Sweep, write

log = logging.getLogger("unperturbed")
Make = Callable[[Mapping[str, str], Path], Combination]
"""A function from values (by the options of their axes) and a run folder to the combination."""


Result = tuple[Mapping[str, Any] | None, Mapping[str, Any] | None, str | None]
"""The results of training and of evaluation, and the reason of a failure."""
LOST = PATIENCE + 60.0
"""Seconds after which the lock of a lost worker, perhaps on another machine, is free at the latest."""
AGAIN = 1.0
"""Seconds between two tries to get a lock."""


def make_axes(over: Sequence[tuple[str, Sequence[str]]]) -> list[Axis]:
    """Return the axes of these options and values, in the order that names folders.

    Raises:
        InputError: for more than two options, an option given twice, and values given twice.
    """
    if not 1 <= len(over) <= 2:
        raise InputError(f"The sweep is over {len(over)} options, but must be over one option or two.")
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


def combine(axes: Sequence[Axis], out: Path, make: Make) -> list[Combination]:
    """Return one combination for each choice of a value per axis.

    Raises:
        InputError: if two of them would have the same folder.
    """
    combinations: dict[str, Combination] = {}
    for values in product(*(axis.values for axis in axes)):
        pairs = list(zip(axes, values, strict=True))
        name = ",".join(f"{axis.name}={re.sub(r'[^A-Za-z0-9.+_-]+', '-', value)}" for axis, value in pairs)
        combination = make({axis.option: value for axis, value in pairs}, out / name)
        if name in combinations:
            raise InputError(
                f"--over: {combinations[name].name} and {combination.name} would have the same run folder, {name}."
            )
        combinations[name] = combination
    return list(combinations.values())


def check_folder(out: Path, axes: Sequence[Axis]) -> None:
    """Raise InputError for a run folder, and for the folder of a sweep over other options."""
    if (out / CONFIG).exists():
        raise InputError(f"{out} is a run folder: give another --out, a folder for the run folders of the sweep.")
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
        Unit(number, 1, _Run(combination, number < len(begun), patience))
        for number, combination in enumerate([*begun, *new])
    ]

    def report(finished: float, text: str) -> None:
        progress(min(finished + engine.workers, total), total, text)

    with locked(out):
        try:
            for ended, (number, result) in enumerate(engine.map(units, report), 1):
                combination = [*begun, *new][number]
                combination.trained, combination.outcome, combination.error = result
                if combination.error:
                    log.error("%s failed: %s", combination.name, combination.error)
                if ended >= len(begun):
                    swept = write(out, about, axes, combinations)
        except (KeyboardInterrupt, OSError) as error:
            error.__notes__ = [f"Finished runs are kept in {out}. Run the same command again to resume."]
            raise
    return swept


@dataclass(frozen=True, eq=False)
class _Run:
    """The training and the evaluation of one combination, which resume by the files of its run folder."""

    combination: Combination
    is_begun: bool
    """Whether its folder exists: if it has other options, the error is raised."""
    patience: float
    """The seconds to wait for the lock of a run folder, which a lost worker may hold."""

    def __call__(self, begun: None, keep: Keep, report: Report) -> Result:
        """Return the results of training and evaluation, and the reason of a failure."""
        combination, trained = self.combination, None
        report(0.0, combination.name)
        try:
            trained = self._unlocked(combination.train)
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
