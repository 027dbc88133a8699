"""The catalogue: the names in every folder of the package, read without importing its files."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from unperturbed.errors import InputError, hint

PACKAGE = Path(__file__).parent
NOUNS = {
    "methods": "method",
    "maximise": "maximiser",
    "architectures": "model",
    "attacks": "attack",
    "suites": "suite",
    "examinations/diagnostics": "diagnostic",
    "engines": "engine",
}
"""The noun for an entry of each folder."""
VALUES = {
    "suites": "Suite",
    "studies/claims": "Study",
    "attacks": "Attack",
    "data/forms": "Form",
    "architectures/libraries": "Source",
}
"""The type of the module-level values that are entries of a folder: `QUICK: Suite = Suite("quick", ...)`."""
FUNCTIONS = {"examinations/diagnostics": "Finding", "examinations/explanations": "Explanation"}
"""The return type of the module-level functions that are entries of a folder."""


@dataclass(frozen=True)
class Entry:
    """A class, value or function that has a name: its name, its import path, and one line about it."""

    name: str
    path: str
    summary: str


@cache
def listing(folder: str) -> dict[str, Entry]:
    """Return the entries of a folder of the package by name.

    An entry is a class with `name: ClassVar[str] = "..."`, a value `NAME: Suite = Suite("...", ...)` of the folder's
    type in `VALUES`, or a public function that returns its type in `FUNCTIONS`.
    """
    entries = {}
    for file in sorted((PACKAGE / folder).glob("*.py")):
        module = f"{PACKAGE.name}.{folder.replace('/', '.')}.{file.stem}"
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            for name, variable, summary in _entries_of(node, folder):
                entries[name] = Entry(name, f"{module}.{variable}", summary.partition("\n")[0])
    return entries


def _entries_of(node: ast.stmt, folder: str) -> Iterator[tuple[str, str, str]]:
    """Yield the name, the variable and the documentation of an entry that a statement makes."""
    if isinstance(node, ast.ClassDef) and (name := _name_of(node)) is not None:
        yield name, node.name, ast.get_docstring(node) or ""
    elif isinstance(node, ast.FunctionDef) and isinstance(node.returns, ast.Name):
        if node.returns.id == FUNCTIONS.get(folder) and not node.name.startswith("_"):
            yield node.name, node.name, ast.get_docstring(node) or ""
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        kind, call = node.annotation, node.value
        if isinstance(kind, ast.Name) and kind.id == VALUES.get(folder) and isinstance(call, ast.Call):
            values = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg in ("name", "note"))]
            texts = [part.value for part in values if isinstance(part, ast.Constant) and isinstance(part.value, str)]
            if texts:
                yield texts[0].lower(), node.target.id, texts[1] if len(texts) > 1 else ""


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


def literals_of(file: Path) -> dict[str, object]:
    """Return the module-level names of a Python file whose values are literals, without importing it."""
    values: dict[str, object] = {}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            values |= {target.id: node.value.value for target in node.targets if isinstance(target, ast.Name)}
    return values


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
            "Give your own as package.module:Name."
        )
    return entries[text].path


def short(path: str) -> str:
    """Return the short name of a dotted path where it has one, otherwise `package.module:Name`."""
    return _short_names().get(path, ":".join(path.rsplit(".", 1)))


@cache
def _short_names() -> dict[str, str]:
    return {entry.path: entry.name for folder in NOUNS for entry in listing(folder).values()}


@cache
def contents(package: str) -> dict[str, str]:
    """Return the module of every public class in the files of a package of ours, by the name of the class."""
    classes = {}
    for file in sorted((PACKAGE / package.partition(".")[2].replace(".", "/")).glob("*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                classes[node.name] = f"{package}.{file.stem}"
    return classes


def load(package: str, name: str) -> Any:
    """Return a class of a package's table; raises `AttributeError` for another name, as a module does."""
    home = contents(package).get(name)
    if home is None:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    return getattr(import_module(home), name)
