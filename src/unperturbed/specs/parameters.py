"""The parameters of classes and functions, and values converted to their annotations."""

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentError, ArgumentParser

from unperturbed.checks import check_numeral
from unperturbed.errors import InputError
from unperturbed.imports import OWN, Trust, check_nested

ABSENT: Any = object()
"""A marker for a missing value, default or annotation (None may be a value)."""
BASES = {
    "methods": "unperturbed.methods.base.Method",
    "maximise": "unperturbed.maximise.ascent.Maximiser",
    "attacks": "unperturbed.attacks.base.Attack",
}
"""The base class of the entries of a folder."""
NOUNS: dict[Any, str] = {
    bool: "true or false", float: "a number", int: "a whole number", str: "text", type(None): "null"
}  # fmt: skip
"""Types in words."""
UNANNOTATED = {"method": "methods", "maximiser": "maximise"}
"""The folder with the values of a parameter without an annotation."""


CALLED = (
    "unperturbed.types.Loss",
    "unperturbed.types.TargetedLoss",
    "unperturbed.types.LogitMap",
    "unperturbed.attacks.targets.TargetOrder",
)
"""Protocols of functions, and of objects that are called."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a class or function: its annotation and default (or ABSENT)."""

    name: str
    annotation: Any
    default: Any

    @property
    def folder(self) -> str | None:
        """The folder of the package with the values of this parameter, or None for a plain value."""
        return UNANNOTATED.get(self.name) if self.annotation is ABSENT else folder_of(self.annotation)

    @property
    def is_called(self) -> bool:
        """Whether the value is a function or an object that is called, by its annotation's name.

        (Importing the protocols would load PyTorch.)
        """
        kind = self.annotation
        return f"{getattr(kind, '__module__', '')}.{getattr(kind, '__name__', '')}" in CALLED


def folder_of(annotation: Any) -> str | None:
    """Return the folder with the values of an annotation, such as "methods" for `Method | None`, or None."""
    for part in (annotation, *get_args(annotation)):
        for base in inspect.getmro(part) if inspect.isclass(part) else ():
            path = f"{base.__module__}.{base.__qualname__}"
            if path in BASES.values():
                return next(folder for folder, listed in BASES.items() if listed == path)
    return None


def parameters_of(target: Callable[..., object]) -> dict[str, Parameter]:
    """Return the named parameters of a class or function."""
    described = dataclasses.fields(target) if inspect.isclass(target) and dataclasses.is_dataclass(target) else ()
    factories = {field.name: field.default_factory for field in described}
    function = target.__init__ if inspect.isclass(target) else target
    try:
        hints = get_type_hints(function)
    except (NameError, TypeError):
        hints = {}
    parameters = {}
    for name, parameter in inspect.signature(target).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        factory = factories.get(name, dataclasses.MISSING)
        default = ABSENT if parameter.default is parameter.empty else parameter.default
        default_value = default if factory is dataclasses.MISSING else factory()
        parameters[name] = Parameter(name, hints.get(name, ABSENT), default_value)
    return parameters


def takes_anything(target: Callable[..., object]) -> bool:
    """Tell whether a class or function takes keyword arguments of any name."""
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in inspect.signature(target).parameters.values())


def _in_words(annotation: Any) -> str:
    """Return what an annotation accepts, such as "a whole number or null"."""
    if get_origin(annotation) is Literal:
        return " or ".join(map(repr, get_args(annotation)))
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join(dict.fromkeys(map(_in_words, get_args(annotation))))
    if get_origin(annotation) in (tuple, list):
        return f"a list in brackets of {_in_words(get_args(annotation)[0]).removeprefix('a ')}s, such as [1,2]"
    name = annotation.__name__ if inspect.isclass(annotation) else str(annotation).replace("typing.", "")
    return NOUNS[annotation] if inspect.isclass(annotation) and annotation in NOUNS else f"of type {name}"


def convert(value: object, annotation: Any, option: str, trust: Trust = OWN) -> Any:
    """Convert a value from text or YAML to its annotation.

    Raises `InputError` if that fails, and for import paths in it that are not followed, before any import.
    """
    check_nested(value, option, trust, strings=not _is_plain(annotation))
    parser = ArgumentParser(exit_on_error=False)
    try:
        parser.add_argument("--value", type=Any if annotation is ABSENT else annotation)
    except ValueError:
        parser.add_argument("--value", type=Any)
    try:
        converted = parser.parse_object({"value": value}).value
    except (ArgumentError, OverflowError, RecursionError) as error:
        raise InputError(f"{option} is {value!r:.80}, but must be {_in_words(annotation)}.") from error
    check_numeral(option, value, converted)
    return converted


def _is_plain(annotation: Any) -> bool:
    """Tell whether values of this annotation are neither classes nor functions, and so no import paths."""
    plain = annotation in (ABSENT, Any, None, type(None), object, str, int, float, bool, list, tuple, dict, Path, ...)
    if plain or get_origin(annotation) is Literal or isinstance(annotation, str):
        return True
    parts = get_args(annotation)
    return bool(parts) and get_origin(annotation) not in (type, Callable) and all(_is_plain(part) for part in parts)
