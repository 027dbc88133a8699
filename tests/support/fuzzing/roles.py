"""Arguments of the Python API by what they mean: valid values, nonsense, and what may go either way."""

import inspect
import math
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
from torch import nn

import unperturbed as un
from support.fuzzing import data, networks, threats
from support.fuzzing.data import CLASSES, FEATURES
from support.fuzzing.values import ANYTHING, COUNTS, NO_NUMBER, NO_PATH, NO_WHOLE, NUMBERS, Make, but, not_callable, of
from support.toys import linear
from unperturbed.catalogue import contents
from unperturbed.maximise.ascent import Maximiser
from unperturbed.methods.base import Method


@dataclass(frozen=True)
class Role:
    """The values for one kind of argument: valid ones, invalid ones and doubtful ones; `words` name it in messages."""

    valid: Make
    nonsense: Sequence[Make]
    odd: Sequence[Make] = ()
    words: str = ""


@dataclass(frozen=True)
class Call:
    """A public function or class, the roles of its arguments, and what a result must be."""

    function: Callable[..., Any]
    roles: Mapping[str, Role]
    judge: Callable[[Any, dict[str, Any]], object] = field(default=lambda result, given: None)


MODEL = Role(
    lambda: linear(FEATURES, CLASSES), networks.BAD_MODEL, networks.ODD_MODEL, "model|network|weights|logits|label|loss"
)
DATA = Role(
    lambda: (data.inputs(), data.labels()),
    [*data.bad_data(), *of(None)],
    list(data.odd_data()),
    "data|input|label|example|item|model|pair|outcome",
)
THREAT = Role(threats.threat, threats.BAD_THREAT, threats.ODD_THREAT, "threat|bounds|eps")
SUITE = Role(threats.quick, threats.BAD_SUITE, threats.ODD_SUITE, "suite|attack|returned")
SEED = Role(lambda: 0, NO_WHOLE, of(0, 5, 2**62, 2**63, 10**30))
SIZE = Role(lambda: "auto", but(NO_WHOLE, type(None)), COUNTS)
OUT = Role(lambda: None, NO_PATH, of("new", Path("new"), "file", "file/below", "full", "/proc/none", "x" * 300))
YES = Role(lambda: False, [*ANYTHING, *of(1, 0, None, "yes", "")], of(True, np.bool_(True)))
PART = Role(
    lambda: None, not_callable(but(ANYTHING, str)), of(0, -1, 1, "logits", "none", lambda o: o, lambda o: None, True)
)
PROGRESS = Role(lambda: print, [*not_callable(ANYTHING), *of(None, 1, "print")])
PROGRESS = replace(PROGRESS, valid=lambda: lambda *words: None)


def methods_of() -> Role:
    nonsense = [*ANYTHING, *of("at", 5, un.AT, un.AT().maximiser, nn.Linear(2, 2))]
    return Role(lambda: un.AT(un.maximise.PGD(steps=1)), nonsense)


def role_of(name: str, kind: Any, valid: Make) -> Role | None:
    """Return the role that an annotation means, None for one that is not known here."""
    kinds = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    first, optional = kinds[0], type(None) in kinds
    more = [] if optional else of(None)
    if name in ("few_classes", "note", "name", "label"):
        return Role(valid, [*but(ANYTHING, str), *of(3, True), *more], of("", "a\nb", "x" * 1000))
    if first is int:
        return Role(valid, [*NO_WHOLE, *more], [*COUNTS, *of(-3)])
    if first is float:
        return Role(valid, [*NO_NUMBER, *more], NUMBERS) if name != "enough" else None
    if first is bool:
        return Role(valid, YES.nonsense, YES.odd)
    if get_origin(first) is Literal:
        return Role(valid, [*ANYTHING, *of("", "nothing", 3, b"sgd", *more)], of(*get_args(first)))
    if get_origin(first) is tuple and get_args(first)[0] in (int, float):
        whole = get_args(first)[0] is int
        nonsense = [*but(ANYTHING, list), *of(None, 3, "0.5", [math.nan], ["a"], [True], [None], [[1]])]
        words = "shape|images" if name == "input_shape" else ""
        return Role(
            valid, nonsense, of([], [1], (1,), [0], [-1], [0.5, 0.5] if not whole else [1, 1], [1e30], range(2)), words
        )
    if inspect.isclass(first) and issubclass(first, Maximiser):
        nonsense = [*not_callable(ANYTHING), *of(None, "pgd", un.maximise.PGD, un.AT())]
        return Role(valid, nonsense, of(lambda score, x, threat, noise, start=None: x))
    if inspect.isclass(first) and issubclass(first, Method):
        return methods_of()
    return None


def classes_of(package: str, base: type) -> Iterator[type]:
    """Yield the public classes of a package's table of contents that can be made."""
    module = getattr(un, package)
    for name in contents(module.__name__):
        kind = getattr(module, name)
        if inspect.isclass(kind) and issubclass(kind, base) and not inspect.isabstract(kind):
            yield kind


CHEAP = {"steps": 2, "queries": 10, "restarts": 1, "samples": 2, "targets": 1, "count": 1, "parts": 1}
"""Settings that make a call quick."""


def settings(kind: type, **fixed: Any) -> dict[str, Role]:
    """Return the roles of a class's settings, each at its default or cheaper."""
    hints = get_type_hints(kind if hasattr(kind, "__dataclass_fields__") else kind.__init__)  # type: ignore[misc]
    roles = {}
    for name, parameter in inspect.signature(kind).parameters.items():
        default = fixed.get(name, CHEAP.get(name, parameter.default))
        factory = repr(default) == "<factory>"
        role = role_of(name, hints.get(name), (lambda value=default: value))
        if role is not None and not factory:
            roles[name] = role
        elif role is not None:
            roles[name] = replace(role, valid=un.AT if hints[name] is Method else lambda: un.maximise.PGD(steps=2))
    return roles
