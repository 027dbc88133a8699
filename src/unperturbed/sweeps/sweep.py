"""A sweep from Python: training and evaluation over values of one or two options."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from torch import nn

from unperturbed.attacks.gradient import Suite
from unperturbed.checks import checked
from unperturbed.data.selection import choose, parse
from unperturbed.data.split import Data
from unperturbed.engines.base import Engine
from unperturbed.errors import InputError, hint
from unperturbed.evaluation.accuracy import evaluate
from unperturbed.findings import Progress, silent
from unperturbed.methods.at import AT
from unperturbed.methods.base import Method
from unperturbed.specs.model_for import model_for
from unperturbed.specs.spec import describe
from unperturbed.specs.trees import Tree
from unperturbed.specs.trees import choose as choose_class
from unperturbed.storage.opened import all_files, published
from unperturbed.suites.by_name import find_suite
from unperturbed.sweeps.grid import as_text, check_folder, check_grid, combine, make_axes, run_all
from unperturbed.sweeps.ranges import Range
from unperturbed.sweeps.rows import Axis, Combination
from unperturbed.sweeps.search import Stop, check_held_out, plan_of, recorded
from unperturbed.sweeps.search import search as run_search
from unperturbed.sweeps.table import Sweep
from unperturbed.sweeps.tpe import TPE
from unperturbed.threat import Threat
from unperturbed.training.loop import train
from unperturbed.training.recipe import Recipe

RECIPE = tuple(field.name for field in fields(Recipe))
TREES = ("method", "model")
"""Options that name a class, and may have further options: `method.beta`."""


@published(all_files)
@checked()
def sweep(
    over: Mapping[str, Sequence[Any] | Range],
    data: Data,
    threat: Threat,
    method: Method | None = None,
    recipe: Recipe | None = None,
    *,
    model: str | Callable[[int], nn.Module] | None = None,
    suite: str | Suite = "fast",
    examples: int | str | None = None,
    search: TPE | None = None,
    stop: Stop = None,
    out: Path | str = "runs/sweep",
    device: str = "auto",
    engine: str | Engine | None = None,
    progress: Progress = silent,
) -> Sweep:
    """Train a network for each combination of values, evaluate all of them, and compare clean and robust accuracy.

    Rerunning resumes: finished runs and evaluations are read. A failed run is an entry of the table.

    With `search` or `stop` the table names a chosen run: the one with the highest robust accuracy on held-out training
    examples. The test split is evaluated for the table, and has no part in the choice.

    Args:
        over: one or two options and their values: a field of the recipe ("seed", "epochs"), "method" or "method.beta",
            "model" or "model.width", or "threat" ("Linf:8/255"). Seeds are summed up in one row. For a search any
            number of options, each with values or a `Range`.
        data: with a test split.
        threat: the threat set of training and evaluation, unless `over` varies it.
        method: the training method; None: `AT()`.
        recipe: its optimisation; None: `Recipe()`.
        model: a name for `model_for`, or a function from a seed to a network with random weights.
        suite: the attacks of the evaluation.
        examples: test examples: N, "first:N", "stratified:N" or "random:N"; None: all.
        search: suggests the values of each run from the results of earlier ones; None: every combination of values.
        stop: "asha": successive halving. Runs are compared after a third of their epochs, a third of that, and so on,
            and the best third of them is trained further; None: every run is trained to its end.
        out: the folder of the run folders, sweep.json, sweep.md and sweep.svg.
        device: "auto", "cpu", "cuda" or "mps".
        engine: executes the runs: a name, an import path or an `Engine`; None: this process, one after the other. Its
            workers write the run folders, so that all of them must see `out`.
        progress: called at the begin of each run with the number of runs that have begun, and its name.

    Raises:
        InputError: for an unknown option (with the nearest), or a folder of another sweep, before any training.
    """
    method, recipe, folder = method or AT(), recipe or Recipe(), Path(out)
    if data.test is None:
        raise InputError(f"The data {data.name!r} has no test split, and robustness is not measured on training data.")
    test = data.test if examples is None else choose(data.test, parse(examples, None), data.classes)[0]
    ranges = {option: values for option, values in over.items() if isinstance(values, Range)}
    values = {
        _checked(option): {} if isinstance(listed, Range) else {as_text(value): value for value in listed}
        for option, listed in over.items()
    }
    axes = make_axes([(o, [str(v)] if isinstance(v, Range) else list(map(as_text, v))) for o, v in over.items()])
    if search is None:
        check_grid(axes, ranges)
    attacks = find_suite(suite)

    def make(texts: Mapping[str, str], folder: Path) -> Combination:
        chosen = {
            option: ranges[option].value(text) if option in ranges else values[option][text]
            for option, text in texts.items()
        }
        settings = _settings(chosen, threat, method, recipe)

        network = _network(chosen, data, model, settings[2].seed)

        def trained(until: int | None) -> Mapping[str, Any]:
            begun = folder.exists()
            return train(network, data, *settings, out=folder, resume=begun, until=until, device=device).json()

        def evaluated() -> Mapping[str, Any]:
            return evaluate(network, test, settings[0], attacks, out=folder / "evaluation").json()

        return Combination(_by_axis_name(axes, texts), folder, trained, evaluated)

    about = {"suite": attacks.name, "note": attacks.note}
    if search is None and stop is None:
        check_folder(folder, axes)
        return run_all(folder, axes, combine(axes, folder, make), about, progress, engine)
    check_held_out(data, recipe.validation)
    plan = plan_of(axes, ranges, search, stop, recipe.epochs)
    recorded(folder, plan)
    return run_search(folder, plan, make, about, progress, engine)


def _by_axis_name(axes: Sequence[Axis], texts: Mapping[str, str]) -> dict[str, str]:
    return {axis.name: texts[axis.option] for axis in axes}


def _checked(option: str) -> str:
    root, dot, _ = option.partition(".")
    if root in TREES or (not dot and (root == "threat" or root in RECIPE)):
        return option
    raise InputError(f"There is no option {option!r} to sweep over. {hint(option, [*RECIPE, *TREES, 'threat'])}")


def _settings(
    chosen: Mapping[str, Any], threat: Threat, method: Method, recipe: Recipe
) -> tuple[Threat, Method, Recipe]:
    """Return threat, method and recipe with the chosen values."""
    tree = Tree()
    for option, value in chosen.items():
        root, _, below = option.partition(".")
        if root == "method":
            tree.put(below.split(".") if below else [], describe(value))
        elif root == "threat":
            threat = value if isinstance(value, Threat) else Threat.parse(value, threat.bounds)
        elif root in RECIPE:
            recipe = replace(recipe, **{root: value})
    varied = any(option.partition(".")[0] == "method" for option in chosen)
    chosen_method: Method = choose_class(tree, "methods", "method", default=method).build() if varied else method
    return threat, chosen_method, recipe


def _network(
    chosen: Mapping[str, Any], data: Data, model: str | Callable[[int], nn.Module] | None, seed: int
) -> nn.Module:
    """Return a network with random weights from this seed."""
    options = {option.partition(".")[2]: value for option, value in chosen.items() if option.startswith("model.")}
    maker = chosen.get("model", model)
    if maker is None or isinstance(maker, str):
        return model_for(data, maker, seed=seed, **options)
    if options:
        raise InputError(f"The option model.{next(iter(options))} is of a named model, but model is a function.")
    network: nn.Module = maker(seed)
    return network
