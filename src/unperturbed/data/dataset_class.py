"""Classes of datasets whose constructor chooses the split, such as those of torchvision and MedMNIST."""

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from unperturbed.data.convert import as_data, as_split
from unperturbed.data.split import Data
from unperturbed.errors import InputError
from unperturbed.networks.guard import trying

SPLITS: Mapping[str, tuple[Any, Any]] = {"train": (True, False), "split": ("train", "test")}
"""Arguments that choose a split, with their values for training and testing."""


def has_splits(kind: Any) -> bool:
    """Tell whether an object is a class with an argument that chooses a split."""
    return inspect.isclass(kind) and not SPLITS.keys().isdisjoint(_parameters(kind))


def load_splits(path: str, kind: type, root: str | None) -> Data:
    """Return the training and test split of a class of datasets.

    Args:
        path: the import path of the class, for messages.
        kind: a class for which `has_splits` holds.
        root: the argument `root`, the folder of the files; None: the class's own.

    Nothing is downloaded: the constructor's `download` keeps its default, which is False in torchvision and MedMNIST.
    Names of the classes are taken from the attribute `classes`. Raises InputError for other missing arguments.
    """
    parameters = _parameters(kind)
    argument = next(name for name in SPLITS if name in parameters)
    given = {} if root is None else {"root": root}
    if root is not None and "root" not in parameters:
        raise InputError(f"root={root} does not apply to {path}, which has no argument root: leave it out.")
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    missing = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty and parameter.kind in kinds and name not in (argument, *given)
    ]
    if missing == ["root"]:
        raise InputError(f"{path} needs the folder of its files: give {path}?root=FOLDER.")
    if missing:
        raise InputError(f"{path} needs the arguments {', '.join(missing)}: name a function without arguments instead.")
    parts = []
    for value in SPLITS[argument]:
        with trying(f"calling {path} with {argument}={value!r}"):
            parts.append(kind(**given, **{argument: value}))
    data = as_data((as_split(parts[0]), as_split(parts[1])), path)
    names = getattr(parts[0], "classes", None)
    if isinstance(names, list | tuple) and len(names) >= len(data.classes) and all(type(name) is str for name in names):
        return replace(data, classes=tuple(names))
    return data


def _parameters(kind: type) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(kind).parameters
    except ValueError:  # some classes of C have none
        return {}
