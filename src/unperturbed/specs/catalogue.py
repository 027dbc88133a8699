"""The names of the command line: the folders of the package are the tables, read without importing what is in them."""

import ast
import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from unperturbed.errors import InputError
from unperturbed.imports import OWN, follow

PACKAGE = Path(__file__).parents[1]
NOUNS = {"methods": "method", "maximise": "maximiser", "architectures": "model"}
"""What an entry of each folder is called."""


@dataclass(frozen=True)
class Entry:
    """A class that has a name: what it is called, where it is, and the first line of its docstring."""

    name: str
    path: str
    summary: str


@cache
def listing(folder: str) -> dict[str, Entry]:
    """Return the classes in a folder of the package that have a `name: ClassVar[str] = "..."`, by name."""
    entries = {}
    for file in sorted((PACKAGE / folder).glob("*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            name = _name_of(node) if isinstance(node, ast.ClassDef) else None
            if isinstance(node, ast.ClassDef) and name is not None:
                path = f"{PACKAGE.name}.{folder}.{file.stem}.{node.name}"
                summary = (ast.get_docstring(node) or "").partition("\n")[0]
                entries[name] = Entry(name, path, summary)
    return entries


def _name_of(node: ast.ClassDef) -> str | None:
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign | ast.Assign) and isinstance(statement.value, ast.Constant):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            if any(isinstance(target, ast.Name) and target.id == "name" for target in targets):
                return str(statement.value.value)
    return None


def summary_of(file: Path) -> str:
    """Return the first line of a Python file's docstring, without importing it."""
    return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def hint(name: str, known: Iterable[str]) -> str:
    """Return a sentence that points from an unknown name to the nearest known one, or to all where none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if near:
        return f"Did you mean {near[0]!r}?"
    return f"Known are: {', '.join(known)}." if known else "There are none."


def expand(text: str, folder: str, option: str) -> str:
    """Return the dotted path of a short name of a folder, of `package.module:Name`, or of a dotted path.

    Raises `InputError`, with the nearest name, for a short name that the folder does not have.
    """
    if ":" in text or "." in text:
        return text.replace(":", ".")
    entries = listing(folder)
    if text not in entries:
        raise InputError(
            f"{option}: there is no {NOUNS[folder]} {text!r}. {hint(text, entries)} "
            f"Give your own as package.module:Name."
        )
    return entries[text].path


def short(path: str, folder: str) -> str:
    """Return the short name of a dotted path where it has one, otherwise `package.module:Name`."""
    for entry in listing(folder).values():
        if entry.path == path:
            return entry.name
    return ":".join(path.rsplit(".", 1))


def find(path: str, option: str) -> object:
    """Import what a path of the caller's own names; raises `InputError` where that fails, with the reason."""
    return follow(path, option, OWN)
