"""The runs of a sweep: one for each combination of values, trained and evaluated one after the other."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from unperturbed.errors import InputError, RunError
from unperturbed.evaluation.measurement import LOADED
from unperturbed.findings import Progress, silent
from unperturbed.runs.files import CONFIG
from unperturbed.runs.lock import locked
from unperturbed.runs.verify import read_object
from unperturbed.sweeps.table import SEED, Axis, Combination, Sweep, write

log = logging.getLogger("unperturbed")
Make = Callable[[Mapping[str, str], Path], Combination]
"""A function from values (by the options of their axes) and a run folder to the combination."""


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
) -> Sweep:
    """Train and evaluate each unfinished combination, and write the table after each.

    A failed run is an entry of the table, and the others continue. `suite` has its `suite` and `note`.

    Raises:
        InputError: if an existing run folder has other options, before any training.
    """
    about = {"over": {axis.option: list(axis.values) for axis in axes}, **suite, "figure": str(out / "sweep.svg")}
    started = [combination_of_all for combination_of_all in combinations if combination_of_all.folder.exists()]
    new = [combination_of_all for combination_of_all in combinations if not combination_of_all.folder.exists()]
    with locked(out):
        for number, combination in enumerate([*started, *new], 1):
            progress(number, len(combinations), combination.name)
            try:
                _run_one(combination, is_begun=number <= len(started))
            except (KeyboardInterrupt, OSError) as error:
                error.__notes__ = [f"Finished runs are kept in {out}. Run the same command again to resume."]
                raise
            if number >= len(started):
                swept = write(out, about, axes, combinations)
    return swept


def _run_one(combination: Combination, is_begun: bool) -> None:
    """Train and evaluate one combination; store its error, unless an existing folder has other options."""
    try:
        combination.trained = combination.train()
        combination.outcome = _without_loading(combination.evaluate())
    except (RuntimeError, ValueError) as error:  # also errors of PyTorch: the other runs may succeed
        if isinstance(error, InputError) and is_begun:
            raise
        expected = isinstance(error, InputError | RunError)
        combination.error = str(error) if expected else f"{type(error).__name__}: {error}"
        log.error("%s failed: %s", combination.name, combination.error)


def _without_loading(outcome: Mapping[str, Any]) -> dict[str, Any]:
    """Return an outcome without the warning of an earlier call, so that a resumed sweep has the same table."""
    return {**outcome, "warnings": [text for text in outcome["warnings"] if not text.startswith(LOADED)]}


def as_text(value: Any) -> str:
    """Return a value of an axis as text for tables and folders."""
    return value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)
