"""Engines by name, found by file: a class with a `name` in this folder, or an import path."""

from typing import Any

from unperturbed.catalogue import expand
from unperturbed.engines.base import Engine
from unperturbed.engines.group import group, usual_engine
from unperturbed.errors import InputError
from unperturbed.imports import OWN, Trust, follow


def find_engine(engine: str | Engine | None, trust: Trust = OWN) -> Engine:
    """Return the engine of this name or import path, or itself; None: of the process's group, or of this process.

    Raises:
        InputError: for an unknown name (with the nearest), an import path that leads to no engine, and an engine that
            is given within a group of processes, which share the units already.
    """
    if engine is None:
        return usual_engine()
    if group()[1] > 1:
        raise InputError(f"The engine is {engine!r}, but several processes share the work: give one of the two.")
    if not isinstance(engine, str):
        return engine
    path = engine if ":" in engine else expand(engine, "engines", "--engine")
    kind: Any = follow(path, "--engine", trust)
    try:
        made = kind() if isinstance(kind, type) and hasattr(kind, "map") else kind  # no other class is called
    except TypeError as error:
        raise InputError(f"--engine: {path} cannot be made without arguments ({error}): name an instance.") from error
    if isinstance(made, type) or not isinstance(made, Engine):
        name = made.__name__ if isinstance(made, type) else type(made).__name__
        raise InputError(f"--engine: {path} is of type {name}, but an engine has `workers` and `map`: name one.")
    return made
