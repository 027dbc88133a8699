"""Diagnostics by name: the functions of `diagnostics` that return a `Finding`, and import paths; hashes of code."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from unperturbed.catalogue import listing
from unperturbed.errors import InputError, hint
from unperturbed.examinations.subject import Diagnostic
from unperturbed.imports import OWN, Trust, follow, is_function
from unperturbed.networks.fingerprint import describe


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


def source_of(function: Callable[..., Any], folder: str) -> str:
    """Return a hash of a function's code: of a user's function, or of all files in a folder of the examinations.

    Empty if it cannot be computed, since the code may have changed.
    """
    if not function.__module__.startswith("unperturbed."):
        described = describe(function)
        return "" if described.doubts else described.hash(described)
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).with_name(folder).glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()
