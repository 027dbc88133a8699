"""The network of a command's options: construction, check against a run, and loading."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unperturbed.architectures.by_name import source_of, without_download
from unperturbed.architectures.libraries.base import LibraryModel
from unperturbed.cli.console import say
from unperturbed.cli.options import Parsed
from unperturbed.data.check import mean_std
from unperturbed.data.split import Data
from unperturbed.errors import InputError
from unperturbed.imports import OWN, Trust
from unperturbed.runs import BEST, CONFIG, METRICS, RESULT, read_jsonl
from unperturbed.runs.record import RunRecord
from unperturbed.specs.parameters import ABSENT, parameters_of
from unperturbed.specs.spec import describe
from unperturbed.specs.trees import Spec, Tree
from unperturbed.specs.trees import choose as choose_class
from unperturbed.storage.places import is_url
from unperturbed.weights.files import build_model, load_weights
from unperturbed.weights.rebuild import architecture, check_rebuilt

FILLED = ("input_shape", "classes", "mean", "std")
"""Arguments of models that follow from the data."""


def make_model(tree: Tree, data: Data, seed: int = 0, trust: Trust = OWN) -> tuple[nn.Module, Mapping[str, Any]]:
    """Return the requested model, and its specification for a run folder; `FILLED` arguments follow from the data."""
    model_tree = Tree("small-cnn" if len(data.train.shape) == 3 else "mlp").under(tree)
    choice = choose_class(model_tree, "architectures", "model", filled=FILLED, trust=trust)
    arguments = {
        name: tuple(value) if name in FILLED and isinstance(value, list) else value
        for name, value in choice.arguments.items()
    }
    open_names = [name for name in FILLED if name in parameters_of(choice.target) and name not in arguments]
    mean, std = mean_std(data.train) if {"mean", "std"} & set(open_names) else ((0.0,), (1.0,))
    shape, classes = tuple(data.train.shape), len(data.classes)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build_model(str(model_tree.value), arguments, shape, classes, mean, std)
    if isinstance(model, LibraryModel):
        return model, {"class_path": model.spec, "init_args": model.init_args}
    from_data = {"input_shape": shape, "classes": classes, "mean": mean, "std": std}
    arguments |= {name: from_data[name] for name in open_names}
    return model, describe(Spec(choice.target, arguments)) | {"class_path": str(model_tree.value)}


def load_into(model: nn.Module, weights: str, tree: Tree, trust: Trust) -> None:
    """Load a weights file and print the report on its names.

    A file without normalisation is accepted only if the user gives the mean and std of its training. A URL that stands
    in a file is not read without trust.
    """
    if is_url(weights) and not (trust.everything or weights.partition("?")[0] in trust.places):
        raise InputError(
            f"The weights {weights} stand in a file, and are not downloaded: give them yourself (--weights), or add "
            "--trust."
        )
    say(str(load_weights(model, weights, keep_normalisation={"mean", "std"} <= tree.options.keys())))


def model_and_weights(parsed: Parsed, stored: RunRecord | None, trained: bool = True) -> tuple[Tree, str | None]:
    """Return the model and weights of the options; raises `InputError` for untrained (if `trained`) or unclear ones."""
    tree, weights = Tree(), parsed.weights
    if stored is not None:
        tree = model_of(stored, parsed.run, parsed.trees["model"].value is not ABSENT)
        best = Path(parsed.run) / BEST
        if weights is None and not best.is_file():
            raise InputError(f"{best} is not there: the run has not finished an epoch. Resume it, or give --weights.")
        if weights is None and not (Path(parsed.run) / RESULT).exists():
            finished_epochs, planned = len(read_jsonl(Path(parsed.run) / METRICS)), (stored.recipe or {}).get("epochs")
            say(
                f"{parsed.run} has not ended: its best weights after {finished_epochs} of {planned} epochs are used.",
                "warning",
            )
        weights = weights or str(best)
    tree = tree.under(parsed.trees["model"])
    if weights is None and trained and is_untrained(tree):
        raise InputError(
            "Nothing trained was given: name a run folder, or --model with --weights (a package.module:function that "
            "returns a trained model needs none)."
        )
    return tree, weights


def is_untrained(tree: Tree) -> bool:
    """Tell whether a model without a file of weights has random ones: functions and libraries may load their own."""
    return ":" not in str(tree.value) and source_of(str(tree.value)) is None


def model_of(stored: RunRecord, run: str, named: bool) -> Tree:
    """Return the specification of a run's network; raises `InputError` if unknown, unless one was `named`."""
    tree = Tree()
    if stored.model is not None:
        path = stored.model.class_path
        tree.put([], {"class_path": path, "init_args": without_download(path, stored.model.init_args)})
    elif not named:
        network = f"a {stored.network.class_path}" if stored.network is not None else "a network"
        raise InputError(
            f"{run} is of {network} that was built in Python, so that the folder cannot tell how: give --model "
            "package.module:Name, which builds the same one."
        )
    return tree


def check_trained(model: nn.Module) -> None:
    """Raise `InputError` for a library's model that is to be measured without weights from a file."""
    if isinstance(model, LibraryModel) and not model.trained:
        raise InputError(
            f"Nothing trained was given: the model {model.spec} has random weights, in part or all of them. Name a run "
            "folder, or give --weights, or --model.pretrained true for data with the classes of the pretrained weights."
        )


def check_first_layer(model: nn.Module, preparation: Mapping[str, Any]) -> None:
    """Raise `InputError` if the options ask for a first layer before a library's model, which has one."""
    if isinstance(model, LibraryModel) and {"scale", "normalise"} & preparation.keys():
        raise InputError(
            f"The model {model.spec} normalises its inputs itself: give --model.normalise in place of --normalise and "
            "--scale."
        )


def check_same_network(model: nn.Module, tree: Tree, stored: RunRecord, run: str) -> None:
    """Raise `InputError` if the built network differs from the one that the run trained."""
    remedy = (
        "Name the one that it was trained with; for its weights in another one on purpose, give --model, --weights "
        f"{Path(run) / BEST} and --data without the run."
    )
    check_rebuilt(model, stored.network, f"--model {tree.value}", run, remedy)


def warn_of_other_network(model: nn.Module, weights: str) -> None:
    """Warn if weights from a run folder are loaded into another network."""
    home = Path(weights).parent
    if not (home / CONFIG).is_file():
        return
    with suppress(InputError):
        trained = RunRecord.read(home).network
        if trained is not None and architecture(model) != trained.architecture:
            text = f"{weights} was trained in another network, a {trained.class_path}"
            say(f"{text}: the measured network differs from the trained one.", "warning")
