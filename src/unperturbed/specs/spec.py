"""`build` and `describe`, inverse to each other: from names, import paths and YAML to objects, and back."""

import inspect
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from unperturbed.attacks.base import Attack
from unperturbed.attacks.gradient import Gate, Suite
from unperturbed.catalogue import listing, short
from unperturbed.data.sources import load_data
from unperturbed.data.split import Data
from unperturbed.errors import InputError
from unperturbed.imports import OWN, Trust, follow
from unperturbed.maximise.ascent import Maximiser
from unperturbed.methods.base import Method
from unperturbed.networks.logits import unwrapped
from unperturbed.runs.record import ModelSpec, plain
from unperturbed.specs.parameters import ABSENT, parameters_of
from unperturbed.specs.trees import Spec, Tree, choose, path_of, spec_of
from unperturbed.suites.by_name import find_suite
from unperturbed.threat import Threat
from unperturbed.types import Bounds
from unperturbed.weights.rebuild import build_from
from unperturbed.weights.rebuild import spec_of as model_spec_of

T = TypeVar("T")
FOLDERS: dict[type, str] = {Method: "methods", Maximiser: "maximise", Attack: "attacks"}
PLAIN_KEYS = ("training", "ramp", "repeats")
"""Attributes of a method that follow from its class."""


def build(spec: object, kind: type[T], trust: Trust = OWN) -> T:
    """Return the object of a specification.

    Args:
        spec: a name, an import path `package.module:Name`, or a mapping with `class_path` and `init_args`; of a threat
            also "Linf:8/255", of data a place, of a suite also attacks with commas between them.
        kind: `Method`, `Maximiser`, `Attack`, `Suite`, `Threat`, `Data` or `torch.nn.Module`.
        trust: which import paths are followed.

    Raises:
        InputError: for unknown names and options (with the nearest), and for values of a wrong type.
    """
    if isinstance(spec, kind):
        return spec
    built = _built(spec, kind, trust)
    if not isinstance(built, kind):
        raise InputError(f"{spec!r:.200} makes a {type(built).__name__}, not a {kind.__name__}.")
    return built


def _built(spec: object, kind: type, trust: Trust) -> object:
    if kind in FOLDERS:
        folder = FOLDERS[kind]
        return choose(Tree.of(spec), folder, kind.__name__.lower(), trust=trust).build()
    if kind is Data:
        return load_data(str(spec), trust)
    if kind is Threat and isinstance(spec, str):
        return Threat.parse(spec)
    if kind is Suite and isinstance(spec, str):
        return find_suite(spec, trust)
    if kind not in (Threat, Suite) and not issubclass(kind, nn.Module):
        raise InputError(f"Nothing of the kind {kind.__name__} is built from a description.")
    content = {"class_path": spec} if isinstance(spec, str) else spec
    if not isinstance(content, Mapping) or "class_path" not in content:
        raise InputError(f"{spec!r:.200} describes no {kind.__name__}: give a name, or class_path and init_args.")
    arguments = content.get("init_args") or {}
    if issubclass(kind, nn.Module):
        return build_from(ModelSpec(str(content["class_path"]), arguments), "the model", trust)
    if kind is Threat:
        shares = arguments.get("shares")
        return Threat(
            arguments["norm"],
            arguments["eps"],
            bounds_of(arguments.get("bounds")),
            None if shares is None else tuple(shares),
        )
    built = {
        name: tuple(build(attack, Attack, trust) for attack in arguments.get(name, ()))  # type: ignore[type-abstract]
        for name in ("attacks", "l1", "l2")
    }
    gate = arguments.get("gate")
    if isinstance(gate, Mapping):
        settings = gate.get("init_args") or {}
        gate = Gate(**{**settings, "suite": build(settings.get("suite"), Suite, trust)})
    return Suite(**{**arguments, **built, "gate": gate})


def bounds_of(value: Any) -> Bounds:
    """Return the box in a description: two numbers, two lists of one number per feature, or None."""
    if value is None:
        return None
    low, high = value
    if isinstance(low, list) or isinstance(high, list):
        return torch.tensor(low), torch.tensor(high)
    return float(low), float(high)


def describe(value: object) -> Any:
    """Return a value in plain YAML form: for an object its class and arguments, from which `build` rebuilds it.

    A class of the package has its short name, any other `package.module:Name`; data have their place.

    Raises:
        InputError: for data without a place, and for networks that only their code can rebuild.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): describe(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [describe(part) for part in value]
    if isinstance(value, Tensor | np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    if inspect.isroutine(value) or inspect.isclass(value):
        return short(path_of(value))
    if isinstance(value, Data):
        return _place(value)
    if isinstance(value, nn.Module) and not isinstance(value, Method | Maximiser):
        return _network(value)
    if isinstance(value, Suite):
        entry = listing("suites").get(value.name)
        if entry is not None and follow(entry.path, "suite", OWN) == value:
            return value.name
    return _object(value)


def _object(value: object) -> Any:
    if not isinstance(value, Spec | Method | Maximiser) and not is_dataclass(value):
        return repr(value)
    spec = spec_of(value)
    parameters = parameters_of(spec.target)
    arguments = dict(spec.arguments)
    if isinstance(value, Spec):
        arguments = {name: parameter.default for name, parameter in parameters.items()} | arguments
    elif set(parameters) - set(arguments):  # arguments under other names: what can be seen of them
        attributes = {**vars(value), **(dict(value.named_children()) if isinstance(value, nn.Module) else {})}
        public = {name: part for name, part in attributes.items() if name[0] != "_" and name not in PLAIN_KEYS}
        kinds = (str, int, float, Method, Maximiser)
        arguments = {name: part for name, part in public.items() if isinstance(part, kinds)}
    described = {name: describe(part) for name, part in arguments.items() if part is not ABSENT}
    return {"class_path": short(path_of(spec.target))} | ({"init_args": described} if described else {})


def _place(data: Data) -> str:
    if data.place is None:
        raise InputError(f"The data {data.name!r} were passed as arrays, without a place: use load_data(...).")
    return data.place


def _network(model: nn.Module) -> Any:
    spec = model_spec_of(unwrapped(model))
    if spec is None:
        raise InputError(
            f"A {type(model).__name__} has no specification: write a function that returns it, and name that "
            "as package.module:function."
        )
    return plain(spec)
