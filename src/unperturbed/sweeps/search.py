"""A search: runs with values from a sampler or a grid; the worse runs may be stopped early.

Trials are compared by the robust accuracy that training measures on held-out training examples. The test split has no
part in any decision: finished trials are evaluated on it for the table only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from unperturbed.data.split import Data, hold_out
from unperturbed.engines.base import Engine, Unit
from unperturbed.engines.by_name import find_engine
from unperturbed.engines.local import Local
from unperturbed.errors import InputError
from unperturbed.findings import Progress, silent
from unperturbed.runs.lock import locked
from unperturbed.sweeps.grid import LOST, Make, TrainingRun, all_values, check_no_run, folder_name, resumable
from unperturbed.sweeps.halving import best_third, rungs_of
from unperturbed.sweeps.ranges import Range
from unperturbed.sweeps.record import FILE, Trial, read_trials, validation_of, write_trials
from unperturbed.sweeps.rows import SEED, Axis, Combination
from unperturbed.sweeps.table import Sweep, write
from unperturbed.sweeps.tpe import TPE, Space, Values

Stop = Literal["asha"] | None
"""How worse trials are stopped."""
WORST = -1.0
"""The score of a failed trial; trials that miss their method's limit have a score from -1 to 0."""


@dataclass(frozen=True)
class Plan:
    """The trials of a search.

    Attributes:
        axes: the options that vary, in the order of their names.
        space: their ranges or values.
        sampler: suggests the values of the trials; None: every combination of the values.
        rungs: the epochs after which trials are compared and two thirds of them stop; the last are those of a whole
            run.
    """

    axes: Sequence[Axis]
    space: Space
    sampler: TPE | None
    rungs: tuple[int, ...]

    def __post_init__(self) -> None:
        """Raise InputError for a search over seeds, and for too few trials to stop any."""
        if any(axis.option == SEED for axis in self.axes):
            raise InputError("A search chooses the best run, and a seed is no choice: leave seed out of --over.")
        if any(axis.option == "epochs" for axis in self.axes) and self.halves:
            raise InputError("--stop compares runs after the same epochs: leave epochs out of --over.")
        if self.halves and self.count < 3:
            raise InputError(f"--stop trains the best third of the runs, but there are {self.count}: give 3 or more.")

    @property
    def halves(self) -> bool:
        """Whether trials are stopped."""
        return len(self.rungs) > 1

    @property
    def count(self) -> int:
        """The number of trials."""
        return len(all_values(self.axes)) if self.sampler is None else self.sampler.trials

    def settings(self) -> dict[str, Any]:
        """Return the settings on which the trials depend; the number of trials may grow if none is stopped."""
        return {
            "over": {axis.option: list(axis.values) for axis in self.axes},
            "search": None if self.sampler is None else "tpe",
            "seed": None if self.sampler is None else self.sampler.seed,
            "rungs": list(self.rungs) if self.halves else None,
            "trials": self.count if self.halves else None,
        }

    def folder(self, out: Path, number: int, values: Values) -> Path:
        """Return the run folder of a trial."""
        return out / (folder_name(self.axes, values) if self.sampler is None else f"trial-{number:03d}")


def plan_of(axes: Sequence[Axis], ranges: Mapping[str, Range], sampler: TPE | None, stop: Stop, epochs: int) -> Plan:
    """Return the plan of a search.

    Args:
        axes: the options, in the order of their names.
        ranges: by option, for those that have a range of numbers.
        sampler: suggests values; None: every combination.
        stop: "asha" stops two thirds of the trials after a third of their epochs, and so on; None: none is stopped.
        epochs: of a whole run.
    """
    space: dict[str, Range | tuple[str, ...]] = {axis.option: ranges.get(axis.option, axis.values) for axis in axes}
    return Plan(axes, space, sampler, rungs_of(epochs) if stop is not None else (epochs,))


def ends_of(axes: Sequence[Axis], ranges: Mapping[str, Range]) -> list[dict[str, str]]:
    """Return values of all options, by option, at which a search is checked before any training.

    These are the first values, and those with one of them replaced: by the other end of a range, or by another value.
    """
    ends = {option: (numbers.text(numbers.low), numbers.text(numbers.high)) for option, numbers in ranges.items()}
    values = {axis.option: ends.get(axis.option, axis.values) for axis in axes}
    first = {option: listed[0] for option, listed in values.items()}
    return [first, *(first | {option: value} for option, listed in values.items() for value in listed[1:])]


def check_held_out(data: Data, validation: float) -> None:
    """Raise InputError if no training example is held out to compare the trials on."""
    if len(hold_out(data.train.labels, validation)[1]) == 0:
        raise InputError(
            f"--search and --stop compare runs on held-out training examples, but validation is {validation:g}, which "
            f"leaves none of the {len(data.train)} examples of {data.name}: give a larger share."
        )


def recorded(out: Path, plan: Plan) -> list[Trial]:
    """Return the recorded trials of a search in this folder.

    Raises:
        InputError: if the folder holds another search, one with more trials, or a sweep without a search.
    """
    check_no_run(out)
    if (out / "sweep.json").exists() and not (out / FILE).exists():
        raise InputError(f"{out} holds a sweep without a search: give another --out.")
    trials = read_trials(out, plan.settings())
    if len(trials) > plan.count:
        raise InputError(f"{out} holds a search of {len(trials)} trials, but --trials is {plan.count}: give as many.")
    return trials


def search(
    out: Path,
    plan: Plan,
    make: Make,
    suite: Mapping[str, str],
    progress: Progress = silent,
    engine: str | Engine | None = None,
) -> Sweep:
    """Train the trials of the plan, evaluate those that are not stopped, and write record and table after each.

    As many trials are suggested at once as the engine has workers; the next ones wait for all of them. So the result
    does not depend on the time that each takes, and a resumed search continues as if it had not been interrupted.

    Args:
        out: the folder of the run folders.
        plan: the trials.
        make: returns the run of a trial from its values and its folder.
        suite: has the `suite` and the `note` of the evaluations.
        progress: called with the number of runs that have begun.
        engine: executes the runs; None: this process, one after the other.

    Raises:
        InputError: if an existing run folder has other options, before any training.
    """
    with locked(out), resumable(out):
        job = _Search(out, plan, make, suite, progress, find_engine(engine), recorded(out, plan))
        job.read_again()
        while job.first_rung():
            pass
        job.promote()
        return job.choose()


@dataclass(eq=False)
class _Search:
    """A search in work."""

    out: Path
    plan: Plan
    make: Make
    suite: Mapping[str, str]
    progress: Progress
    engine: Engine
    trials: list[Trial]
    combinations: dict[int, Combination] = field(default_factory=dict)
    """The runs of the trials, by number; a trial with the values of an earlier one has none."""
    tried: set[tuple[int, int]] = field(default_factory=set)
    """Trial and epochs of the training that this call has done."""

    def __post_init__(self) -> None:
        if self.plan.sampler is None and not self.trials:
            self._add(all_values(self.plan.axes))
        else:
            self._make()

    def read_again(self) -> None:
        """Read the runs of recorded trials: one with other options is found before any training."""
        known = {number: max(trial.reached) for number, trial in self._own().items() if trial.reached}
        units = [self._unit(number, rung) for number, rung in known.items()]
        for number, result in self.engine.map(units, self._report):
            self.combinations[number].take(result)
            self.combinations[number].validation = self.trials[number].reached[known[number]]
        if known:
            self._write()

    def first_rung(self) -> bool:
        """Train the trials that have no accuracies yet, or suggest further ones; False: there are none."""
        rung = self.plan.rungs[0]
        waiting = [n for n, trial in self._own().items() if rung not in trial.reached and (n, rung) not in self.tried]
        if waiting:
            self._train(waiting, rung)
            return True
        count = min(self.engine.workers, self.plan.count - len(self.trials))
        if self.plan.sampler is None or count < 1:
            return False
        history = [(trial.values, self._score(trial)) for trial in self.trials]
        self._add(self.plan.sampler.suggest(self.plan.space, history, count))
        return True

    def promote(self) -> None:
        """Train the best third of each rung further."""
        for below, rung in pairwise(self.plan.rungs):
            ranks = {
                number: trial.reached[below].rank
                for number, trial in self._own().items()
                if below in trial.reached and not self.combinations[number].stopped
            }
            promoted = best_third(ranks) if ranks else []
            for number in ranks.keys() - set(promoted):
                self.combinations[number].stopped = True
            self._train([number for number in promoted if rung not in self.trials[number].reached], rung)

    def choose(self) -> Sweep:
        """Mark the best trial, and return the table."""
        last = self.plan.rungs[-1]
        ranks = {
            number: self.trials[number].reached[last].rank
            for number, combination in self.combinations.items()
            if last in self.trials[number].reached and not combination.stopped
        }
        if ranks:
            best = max(ranks, key=lambda number: (ranks[number], -number))
            self.combinations[best].chosen = True
        return self._write()

    def _own(self) -> dict[int, Trial]:
        """Return the trials that have a run of their own, by number."""
        return {number: self.trials[number] for number in self.combinations}

    def _score(self, trial: Trial) -> float:
        """Return the score of a trial, or of the earlier one with its values."""
        own = next(other for other in self.trials if other.values == trial.values)
        validation = own.reached.get(self.plan.rungs[0])
        if validation is None:
            return WORST
        return validation.robust.value if validation.feasible is not False else validation.robust.value - 1

    def _add(self, suggested: Sequence[Values]) -> None:
        """Record further trials, so that an interrupted call continues with them."""
        self.trials += [Trial(values) for values in suggested]
        self._make()
        write_trials(self.out, self.plan.settings(), self.trials)

    def _make(self) -> None:
        """Make the runs of further trials."""
        seen = [trial.values for trial in self.trials]
        for number, values in enumerate(seen):
            if number not in self.combinations and values not in seen[:number]:
                self.combinations[number] = self.make(values, self.plan.folder(self.out, number + 1, values))
                self.combinations[number].error = self.trials[number].error

    def _unit(self, number: int, rung: int) -> Unit[Any]:
        combination = self.combinations[number]
        until = None if rung == self.plan.rungs[-1] else rung
        patience = 0.0 if isinstance(self.engine, Local) else LOST
        return Unit(number, 1, TrainingRun(combination, combination.folder.exists(), patience, until))

    def _train(self, numbers: Sequence[int], rung: int) -> None:
        """Train these trials until the rung, and record each."""
        self.tried |= {(number, rung) for number in numbers}
        for number, result in self.engine.map([self._unit(number, rung) for number in numbers], self._report):
            combination, trial = self.combinations[number], self.trials[number]
            combination.take(result)
            trial.error = combination.error
            if combination.trained is not None:  # also if its evaluation failed: the test split decides nothing
                trial.reached[rung] = combination.validation = validation_of(combination.trained)
            write_trials(self.out, self.plan.settings(), self.trials)
            self._write()

    def _report(self, finished: float, text: str) -> None:
        """Report the number of trials that have begun."""
        begun = sum(bool(trial.reached or trial.error) for trial in self.trials) + self.engine.workers
        self.progress(min(begun, self.plan.count), self.plan.count, text)

    def _write(self) -> Sweep:
        plan, runs = self.plan, [self.combinations[number] for number in sorted(self.combinations)]
        settings = plan.settings() | {"trials": plan.count, "repeated": len(self.trials) - len(runs)}
        settings["epochs"] = sum(run.trained["epochs"] for run in runs if run.trained is not None)
        chosen = next(({"values": dict(run.values), "run": str(run.folder)} for run in runs if run.chosen), None)
        about = {"over": settings.pop("over"), **self.suite, "figure": str(self.out / "sweep.svg")}
        return write(self.out, {**about, "search": settings, "chosen": chosen}, plan.axes, runs)
