"""Python code as data: the bytecode of functions and classes, and the objects that it names."""

import dis
import hashlib
import os
import sys
import sysconfig
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

Origin = Literal["known", "package", "installed", "user"]
"""The origin of a module: Python, torch or NumPy, known by their versions; this package; another library; the user."""
Child = tuple[str, Any]


@dataclass(frozen=True)
class Unseen:
    """A marker: code may use objects without naming them, and these cannot be determined."""

    reason: str


_SKIPPED = {
    *("__new__", "__del__", "__repr__", "__str__", "extra_repr", "__reduce__", "__getstate__", "__firstlineno__"),
    *("__dict__", "__weakref__", "__doc__", "__module__", "__annotations__", "__static_attributes__"),
    *("__abstractmethods__", "_abc_impl", "__parameters__", "__orig_bases__", "__match_args__", "__qualname__"),
    *("__dataclass_fields__", "__dataclass_params__", "__annotate__", "__annotations_cache__", "__slots__"),
}
"""Class attributes that no forward depends on."""
_BY_TEXT = {"globals", "eval", "exec", "__import__"}
"""Python's functions that look objects up by a text."""
_WRITERS = (types.FunctionType, staticmethod, classmethod, property)


@cache
def origin(module: str) -> Origin:
    """Return the origin of a module, by the path of its file."""
    top = module.partition(".")[0]
    if top in {"torch", "numpy", "builtins"}:
        return "known"
    if top == "unperturbed":
        return "package"
    if top == "__main__":
        return "user"
    file = getattr(sys.modules.get(top), "__file__", None)
    if file is None:
        return "known" if top in sys.stdlib_module_names else "user"
    return origin_of_file(file)


@cache
def origin_of_file(file: str) -> Origin:
    """Return the origin of code, by its source file."""
    parts = Path(file).parts
    if {"site-packages", "dist-packages"} & set(parts):
        return "known" if {"torch", "numpy"} & set(parts) else "installed"
    if file.startswith("<frozen") or file.startswith(sysconfig.get_path("stdlib") + os.sep):
        return "known"
    return "user"


def origin_of_function(function: types.FunctionType) -> Origin:
    """Return the origin of a function; a user's function with a library's name counts as the user's."""
    source = origin(function.__module__ or "__main__")
    file = function.__code__.co_filename
    if source == "known" and not file.startswith("<"):
        return origin_of_file(file)
    return source


def code_hash(code: types.CodeType) -> str:
    """Return a SHA-256 of a code object's instructions, without names of files and numbers of lines.

    It is of the bytecode, not the source: the file may have been edited since it was imported.
    """
    digest = hashlib.sha256(code.co_code)
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    digest.update(repr((names, counts)).encode() + getattr(code, "co_exceptiontable", b""))
    digest.update("".join(_constant(constant) for constant in code.co_consts).encode())
    return digest.hexdigest()


def _constant(value: object) -> str:
    if isinstance(value, types.CodeType):
        return code_hash(value)
    if isinstance(value, tuple):
        return f"({','.join(map(_constant, value))})"
    if isinstance(value, frozenset):  # sets, whose order differs between processes
        return f"{{{','.join(sorted(map(_constant, value)))}}}"
    return f"{type(value).__name__} {value!r}"


@cache
def source_hash(module: str) -> str:
    """Return a hash of the file of a module of this package."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else "no file"


def parts_of_function(function: types.FunctionType) -> Iterator[Child]:
    """Return the dependencies of a function besides its bytecode: defaults, closure, attributes, and named globals.

    The globals of library code are left out: the library's version stands for them.
    """
    yield ".defaults", function.__defaults__
    yield ".keyword_defaults", function.__kwdefaults__
    yield from _closure(function)
    for name, value in sorted(vars(function).items()):
        yield f".{name}", value
    if origin_of_function(function) == "user":
        yield from _globals_of(function)


def _closure(function: types.FunctionType) -> Iterator[Child]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f".closure[{name}]", cell.cell_contents
        except ValueError:  # not bound yet
            yield f".closure[{name}]", "unbound"


def _globals_of(function: types.FunctionType) -> Iterator[Child]:
    scope, used = function.__globals__, _codes(function.__code__)
    attributes = sorted({name for code in used for name in code.co_names})
    loaded = sorted({name for code in used for name in _loaded(code)})
    by_text = "getattr" in loaded or "__dict__" in attributes
    values = {name: scope.get(name, _imported(name, scope.get("__package__"))) for name in loaded}
    for name, value in values.items():
        if isinstance(value, types.ModuleType):
            yield from _of_module(f".globals[{name}]", value, attributes, by_text, {id(value)})
        elif value is not None or name in scope:
            yield f".globals[{name}]", value
            yield from constructors(f".globals[{name}]", value)
    for name in sorted(_BY_TEXT & set(loaded) - set(scope)):
        yield f".{name}", Unseen(f"{name}() looks up objects that the code does not name")
    if ("modules" in attributes and values.get("sys") is sys) or "import_module" in {*attributes, *loaded}:
        yield ".modules", Unseen("it looks a module up by a text")
    from_os = any(value is os.getenv or value is os.environ for value in values.values())
    if from_os or {"environ", "getenv"} & set(attributes):
        yield ".environment", _environment(function, used, values.values())


def _environment(function: types.FunctionType, used: list[types.CodeType], values: Iterable[object]) -> dict[str, str]:
    """Return the environment variables whose names are among a function's texts."""
    cells = [value for _, value in _closure(function)]
    constants = [constant for code in used for constant in code.co_consts]
    texts = {text for text in (*constants, *values, *cells, *(function.__defaults__ or ())) if isinstance(text, str)}
    return {text: os.environ[text] for text in sorted(texts) if text in os.environ}


def constructors(path: str, value: object) -> Iterator[Child]:
    """Return the constructors of a user's class that code names, since the code may call it."""
    if isinstance(value, type) and origin(value.__module__) == "user":
        for kind in value.__mro__:
            if "__init__" in vars(kind) and origin(kind.__module__) == "user":
                yield f"{path}.{kind.__qualname__}.__init__", vars(kind)["__init__"]


def _of_module(
    path: str, module: types.ModuleType, names: list[str], by_text: bool, visited: set[int]
) -> Iterator[Child]:
    """Return the objects that code naming a module and these attributes may read from it and its submodules.

    Code that takes attributes by a text may read any of a module of the user's.
    """
    everything = by_text and origin(module.__name__) == "user"
    for name in sorted(name for name in vars(module) if not name.startswith("__")) if everything else names:
        value = vars(module).get(name)
        if isinstance(value, types.ModuleType):
            if id(value) not in visited:
                visited.add(id(value))
                yield from _of_module(f"{path}.{name}", value, names, by_text, visited)
        elif value is not None and (origin(module.__name__) == "user" or not _belongs(value)):
            yield f"{path}.{name}", value
            yield from constructors(f"{path}.{name}", value)


def _belongs(value: object) -> bool:
    """Tell whether a library's attribute is original, as far as can be seen; a patch is a function of the user."""
    if isinstance(value, types.FunctionType):
        return origin_of_function(value) != "user"
    module = getattr(value, "__module__", None) if callable(value) else None
    return not isinstance(module, str) or origin(module) != "user"


def _imported(name: str, package: Any) -> types.ModuleType | None:
    return sys.modules.get(f"{package}.{name}") or sys.modules.get(name)


def _codes(code: types.CodeType) -> list[types.CodeType]:
    return [
        code,
        *(inner for constant in code.co_consts if isinstance(constant, types.CodeType) for inner in _codes(constant)),
    ]


def _loaded(code: types.CodeType) -> set[str]:
    """Return the names that a code object takes from its module or imports."""
    kinds = ("LOAD_GLOBAL", "LOAD_NAME", "IMPORT_NAME", "IMPORT_FROM")
    names = {str(instruction.argval) for instruction in dis.get_instructions(code) if instruction.opname in kinds}
    return {part for name in names for part in (name, name.partition(".")[0]) if part}


def parts_of_class(kind: type) -> Iterator[Child]:
    """Return the parts that objects of a class share: its functions, other attributes and bases.

    Of classes of Python, torch, NumPy and this package, only foreign functions count, which a user has put there.
    """
    source = origin(kind.__module__)
    for name, value in sorted(vars(kind).items()):
        if name in _SKIPPED or name.startswith("__beartype"):
            continue
        inner = getattr(value, "__func__", value)
        foreign = isinstance(inner, types.FunctionType) and origin_of_function(inner) == "user"
        if source == "known" and not foreign:
            continue
        if source == "package" and not foreign and not isinstance(value, int | float | str):
            continue  # the hash of its file covers the rest
        if source == "installed" and not isinstance(value, (*_WRITERS, int, float, str)):
            continue
        constructor = name == "__init__" and isinstance(value, types.FunctionType)
        yield f".{name}", value.__code__ if constructor else value  # it acts through the attributes that it sets
    if source != "known":
        yield from ((f".base{number}", base) for number, base in enumerate(kind.__bases__))
        if type(kind) is not type and origin(type(kind).__module__) == "user":
            yield ".metaclass", type(kind)
