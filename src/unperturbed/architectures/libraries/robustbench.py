"""Architectures of RobustBench's model zoo: `robustbench:cifar10/Linf/Carmon2019Unlabeled`; weights come by file."""

import re
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from torch import nn

from unperturbed.architectures.libraries.base import LibraryModel, Source, check_channels, image_shape
from unperturbed.errors import InputError, hint

PREFIX = "robustbench:"
CLASSES: Mapping[str, int] = {"cifar10": 10, "cifar100": 100, "imagenet": 1000}
"""The classes of its data sets."""


def maker(text: str) -> Callable[..., LibraryModel]:
    """Return the function that makes the model of a text."""

    def make(input_shape: tuple[int, ...], classes: int) -> LibraryModel:
        """Return the model with random weights; a normalisation inside the model stays there."""
        check_channels(image_shape(input_shape, text)[0], 3, text)
        with warnings.catch_warnings(action="ignore"):  # it uses names that timm has deprecated
            entry = _entry(text)
            if classes != (expected := CLASSES[text.removeprefix(PREFIX).partition("/")[0]]):
                raise InputError(f"The model {text} has {expected} classes, but the data have {classes}.")
            if not callable(entry.get("model")) or isinstance(entry.get("gdrive_id"), list):
                raise InputError(f"{text} is an ensemble, or a model of timm: it has no weights in one file.")
            model = entry["model"]()
        record = {"input_shape": list(input_shape), "classes": classes}
        return LibraryModel(model, nn.Identity(), nn.Identity(), text, record)

    return make


def _entry(text: str) -> Mapping[str, Any]:
    """Return the zoo's entry of a model; raises InputError, with the nearest name, if it has none."""
    try:
        zoo = import_module("robustbench.model_zoo.models").model_dicts
    except ImportError as error:  # the package at PyPI lacks a part of its dependencies
        raise InputError(
            f"The model {text} needs robustbench, which cannot be imported ({error}): "
            "pip install git+https://github.com/RobustBench/robustbench.git"
        ) from error
    names = {
        f"{data.value}/{threat.value}/{name}": entry
        for data, threats in zoo.items()
        for threat, entries in threats.items()
        for name, entry in entries.items()
    }
    name = text.removeprefix(PREFIX)
    if name not in names:
        raise InputError(f"RobustBench's zoo has no model {name!r}: name DATA/THREAT/MODEL. {hint(name, names)}")
    found: Mapping[str, Any] = names[name]
    return found


ROBUSTBENCH: Source = Source(
    "robustbench",
    "an architecture of RobustBench's zoo, for --weights: robustbench:cifar10/Linf/Carmon2019Unlabeled",
    fits=lambda text: text.startswith(PREFIX),
    maker=maker,
    is_plain=lambda text, options: re.fullmatch(r"\w+/\w+/[\w.-]+", text.removeprefix(PREFIX)) is not None,
)
