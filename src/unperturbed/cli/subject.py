"""From options to what commands work on: data, threat, model, device; and back to what a run folder keeps."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unperturbed.cli.console import say
from unperturbed.cli.trees import Choice, Tree, choose, parameters_of, written
from unperturbed.data.check import mean_std
from unperturbed.data.names import DATASETS
from unperturbed.data.split import Data
from unperturbed.errors import InputError
from unperturbed.models.load import build_model, load_weights
from unperturbed.types import Bounds

FILLED = ("input_shape", "classes", "mean", "std")
"""Arguments of models that the data gives."""
THREATS = {"mnist": "Linf:0.3", "digits": "Linf:0.1"}
OTHERWISE = "Linf:8/255"


def default_threat(data: Data) -> str:
    """Return the threat that is usual for the data, by its name."""
    return THREATS.get(data.name, OTHERWISE)


def read_bounds(text: str | None, otherwise: Bounds) -> Bounds:
    """Return the box that `none` or `LOW,HIGH` means."""
    if text is None or text == "none":
        return otherwise if text is None else None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"--bounds is {text!r}: write LOW,HIGH, such as 0,1, or none.") from error
    return low, high


def stored_bounds(value: Any) -> Bounds:
    """Return the box that a config.yaml holds: two numbers, two lists of a number a feature, or none."""
    if value is None:
        return None
    low, high = value
    if isinstance(low, list) or isinstance(high, list):
        return torch.tensor(low), torch.tensor(high)
    return float(low), float(high)


def make_model(tree: Tree, data: Data, seed: int = 0) -> tuple[nn.Module, Mapping[str, Any]]:
    """Return the model that was asked for, and what a run folder keeps of it; the data gives the arguments `FILLED`."""
    named = Tree("small-cnn" if len(data.train.shape) == 3 else "mlp").under(tree)
    choice = choose(named, "models", "model", filled=FILLED)
    arguments = {
        name: tuple(value) if name in FILLED and isinstance(value, list) else value
        for name, value in choice.arguments.items()
    }
    open_names = [name for name in FILLED if name in parameters_of(choice.target) and name not in arguments]
    mean, std = mean_std(data.train) if {"mean", "std"} & set(open_names) else ((0.0,), (1.0,))
    shape, classes = tuple(data.train.shape), len(data.classes)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build_model(str(named.value), arguments, shape, classes, mean, std)

    given = {"input_shape": shape, "classes": classes, "mean": mean, "std": std}
    arguments |= {name: given[name] for name in open_names}
    return model, written(Choice(choice.target, arguments)) | {"class_path": str(named.value)}


def load_into(model: nn.Module, weights: str, tree: Tree) -> None:
    """Load a weights file and tell what became of its names.

    A file without normalisation is taken only where the user says which mean and std the network was trained with.
    """
    say(str(load_weights(model, weights, keep_normalisation={"mean", "std"} <= tree.options.keys())))


def keep_place(spec: str) -> str:
    """Return data or weights given by a path in a form that holds from any folder."""
    if spec in DATASETS:  # a name goes before a folder of that name
        return spec
    place, mark, rest = spec.partition("?")
    return f"{Path(place).resolve()}{mark}{rest}" if Path(place).exists() else spec


def slug(*parts: str) -> str:
    """Return a folder name made of these words; of an import path, the last one."""
    words = (re.sub(r"^[A-Za-z_][\w.]*:(?=[A-Za-z_])", "", part) for part in parts)
    return "-".join(re.sub(r"[^A-Za-z0-9.]+", "-", word).strip("-") for word in words)
