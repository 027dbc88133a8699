"""Diagnostics by name: the functions of `diagnostics` that return a `Finding`, and import paths."""

from collections.abc import Callable, Sequence
from typing import Any

from unperturbed.catalogue import listing
from unperturbed.errors import InputError, hint
from unperturbed.examinations.subject import Diagnostic
from unperturbed.imports import OWN, Trust, follow, is_function


def _built_in() -> dict[str, Diagnostic]:
    diagnostics: dict[str, Any] = {
        name: follow(entry.path, "diagnostic", OWN) for name, entry in listing("examinations/diagnostics").items()
    }
    return diagnostics


BUILT_IN: dict[str, Diagnostic] = _built_in()
"""The diagnostics of the package by name."""


def find_diagnostics(names: Sequence[str | Diagnostic], trust: Trust = OWN) -> list[Diagnostic]:
    """Return the diagnostics of these names or import paths, without duplicates; "all" are those of the package.

    Raises:
        InputError: for an unknown name (with the nearest), and for an import path that leads to no function.
    """
    chosen: dict[str, Diagnostic] = {}
    for name in names:
        if not isinstance(name, str):
            chosen[name_of(name)] = name
        elif name == "all":
            chosen |= BUILT_IN
        elif ":" in name:
            function: Any = follow(name, "--diagnostics", trust)
            if not is_function(function):
                raise InputError(f"--diagnostics: {name} is {type(function).__name__}, but a diagnostic is a function.")
            chosen[name] = function
        elif name in BUILT_IN:
            chosen[name] = BUILT_IN[name]
        else:
            near = hint(name, BUILT_IN)
            raise InputError(f"There is no diagnostic {name!r}. {near} Your own: package.module:function.")
    return list(chosen.values())


def name_of(diagnostic: Callable[..., Any]) -> str:
    """Return the name of a diagnostic: that of its function, with the module for a user's diagnostic."""
    foreign = not diagnostic.__module__.startswith("unperturbed.")
    return f"{diagnostic.__module__}:{diagnostic.__qualname__}" if foreign else diagnostic.__qualname__
