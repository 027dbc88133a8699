"""The runs of a study: trained, or resumed, and measured."""

import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch

from unperturbed.data.selection import Selection, choose
from unperturbed.data.sources import load_data
from unperturbed.data.split import Data
from unperturbed.engines.base import Keep, Report
from unperturbed.errors import InputError
from unperturbed.studies.design import Measure, Measured, Run, Trained
from unperturbed.training.loop import train
from unperturbed.training.prepare import make_optimiser, usual_batch_size
from unperturbed.training.recipe import Recipe
from unperturbed.training.recipes import named_recipe
from unperturbed.training.robust_loss import robust_loss

TRAINING = "training"
"""The name of the values of a run's training: its seconds, and its accuracies on held-out examples."""
REPEATS = 9
"""Alternating repeats of the measurement of time."""
STEPS = 5
"""Optimisation steps of one repeat."""


def data_for(name: str, folder: Path | None, train_examples: int | None = None) -> Data:
    """Return a data set, from the folder of its name in `folder` if that exists; training examples: the first.

    Raises:
        InputError: if `folder` has no data of this name.
    """
    place = name
    if folder is not None and name != "digits":
        if not (folder / name).exists():
            raise InputError(f"--data {folder} has no folder {name}: give a folder that holds one folder per data set.")
        place = str(folder / name)
    data = load_data(place)
    if train_examples is None or train_examples >= len(data.train):
        return data
    return Data(data.name, data.train[:train_examples], data.test, data.classes, data.bounds)


@dataclass(frozen=True, eq=False)
class Work:
    """A run, with the measurements that it lacks; a unit of work for any process.

    Attributes:
        run: the run.
        measures: the missing measurements; none: training only.
        folder: of the run.
        data: the folder of data sets, or None.
    """

    run: Run
    measures: tuple[Measure, ...]
    folder: Path
    data: Path | None

    def __call__(self, begun: None, keep: Keep, report: Report) -> dict[str, Measured]:
        """Train or resume, and return the values of each measurement by its name, those of training included."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # so that the values do not depend on the number of jobs
        try:
            return self._measured(report)
        finally:
            torch.set_num_threads(threads)

    def _measured(self, report: Report) -> dict[str, Measured]:
        run, setting = self.run, self.run.setting
        text = f"{run.network.name}, seed {run.seed}"
        report(0.0, f"{text}: training")
        data = data_for(setting.data, self.data, setting.train)
        model = _untrained(run, data)
        result = train(
            model, data, run.threat, run.method, _recipe(run, data, model), out=self.folder, resume=self.folder.exists()
        )
        training: Measured = {
            "seconds": [result.seconds],
            "held-out clean": [result.clean_accuracy.value],
            "held-out robust": [result.robust_accuracy.value],
        }
        values = {TRAINING: training}
        if data.test is None:
            raise InputError(f"The data {data.name!r} has no test split: a study needs one.")
        count = len(data.test) if setting.test is None else min(setting.test, len(data.test))
        test, _ = choose(data.test, Selection("first", count))
        trained = Trained(model, data.train, test, run, str(self.folder))
        for number, measure in enumerate(self.measures, 1):
            report(number / (len(self.measures) + 1), f"{text}: {measure.name}")
            values[measure.name] = measure.take(trained)
        return values


def _untrained(run: Run, data: Data) -> torch.nn.Module:
    """Return the network of a run before training."""
    return run.setting.network(data, run.seed)


def _recipe(run: Run, data: Data, model: torch.nn.Module) -> Recipe:
    """Return the settings of the optimisation, those of the setting's protocol included."""
    return named_recipe(run.setting.protocol, run.recipe, data, model, run.method, tuple(run.network.changes))


def step_seconds(runs: Mapping[str, Run], folder: Path | None, repeats: int = REPEATS) -> dict[str, list[float]]:
    """Return the seconds of an optimisation step times the steps of the run, by name, alternating in this process.

    A step is the loss of the method, its gradient and a step of the optimiser on one batch of the training data; the
    first round is not counted.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        data = {name: data_for(run.setting.data, folder, run.setting.train) for name, run in runs.items()}
        steps = {name: _step(run, data[name]) for name, run in runs.items()}
        counts = {name: _steps_of(run.recipe, len(data[name].train)) for name, run in runs.items()}
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for repeat in range(repeats + 1):
            for name, step in steps.items():
                began = time.perf_counter()
                for number in range(STEPS):
                    step(repeat * STEPS + number)
                if repeat:
                    seconds[name].append((time.perf_counter() - began) / STEPS * counts[name])
        return seconds
    finally:
        torch.set_num_threads(threads)


def _steps_of(recipe: Recipe, examples: int) -> int:
    """Return the number of optimisation steps of a run."""
    trained = round(examples * (1 - recipe.validation))
    return recipe.epochs * max(1, trained // (recipe.batch_size or usual_batch_size(trained)))


def _step(run: Run, data: Data) -> Callable[[int], None]:
    """Return a function that takes the optimisation step of this number."""
    model, size = _untrained(run, data), run.recipe.batch_size or usual_batch_size(len(data.train))
    x, y = data.train[:size].x, data.train[:size].y
    optimiser, method = make_optimiser(model, run.recipe), deepcopy(run.method)  # a dual variable moves with the steps
    model.train()

    def step(number: int) -> None:
        optimiser.zero_grad()
        robust_loss(method, model, x, y, run.threat, step=number).backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return step
