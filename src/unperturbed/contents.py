"""A package's table of contents: the public classes of its files, imported when they are first used."""

import ast
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent


@cache
def contents(package: str) -> dict[str, str]:
    """Return the module of every public class in the files of a package of ours, by the name of the class.

    The files are read and not imported, so that a listing is quick, and a new file is in the table at once.
    """
    found = {}
    for file in sorted((PACKAGE / package.partition(".")[2].replace(".", "/")).glob("*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name] = f"{package}.{file.stem}"
    return found


def load(package: str, name: str) -> Any:
    """Return a class of a package's table; raises `AttributeError` for another name, as a module does."""
    home = contents(package).get(name)
    if home is None:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    return getattr(import_module(home), name)
