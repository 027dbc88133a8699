"""Import paths, `package.module:Name`: the rules for following them, and the kinds of objects they may name.

A path in a file (a run folder, `--config`) may come from a stranger, and importing runs code. Such a path is followed
only into this package and the libraries `KNOWN`, or if the caller names the same path, or trusts the file.
"""

import functools
import inspect
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any, get_type_hints
from urllib.parse import urlsplit

from unperturbed.checks import NUMERAL
from unperturbed.errors import InputError, hint
from unperturbed.reading import yaml_parts

PACKAGE = __name__.partition(".")[0]
KNOWN = ("timm", "torchvision", "transformers")
"""Libraries whose networks a file may name; their other functions it may not."""
RISKY = ("trust_remote_code", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "kernel_config")
"""Arguments by which these libraries run code or unpickle files: in a file they are refused like an import path."""
PATH = re.compile(r"[^\W\d]\w*(?:[.:][^\W\d]\w*)+")
WORDS = re.compile(r"[\s,=|\[\]{}\"']+")
"""Between the import paths of a longer text."""
DIVIDED = re.compile(r"[.:]")


@dataclass(frozen=True)
class Trust:
    """The caller's trust: import paths that are followed beyond this package and the libraries `KNOWN`, and downloads.

    Attributes:
        named: paths with dots, and names of arguments, that the caller wrote.
        everything: whether the caller trusts all files.
        places: places of data that the caller gave, without their choices: these may be downloaded.
    """

    named: frozenset[str] = frozenset()
    everything: bool = False
    places: frozenset[str] = frozenset()

    def naming(self, *values: object) -> "Trust":
        """Return this trust, extended by all import paths in these values (at any depth)."""
        words = {word for value in values for text in _texts(value) for word in WORDS.split(text)}
        paths = {dotted(word) for word in words if PATH.fullmatch(word)}
        return replace(self, named=self.named | paths)

    def giving(self, *places: str | None) -> "Trust":
        """Return this trust, extended by places of data that the caller gave, with or without choices."""
        return replace(self, places=self.places | {place.partition("?")[0] for place in places if place is not None})

    def of_file(self, path: Path, content: object) -> "Trust":
        """Return this trust, extended by the import paths and places in a file if the caller's list names its folder.

        The list is the file `trusted` in `~/.config/unperturbed` (or `$XDG_CONFIG_HOME/unperturbed`): a folder a line.
        """
        if not any(path.resolve().is_relative_to(folder) for folder in _listed()):
            return self
        return self.naming(content).giving(*_texts(content))

    def check(self, path: str, option: str) -> None:
        """Raise `InputError` unless the caller named the path, or the argument of this name."""
        if self.everything or dotted(path) in self.named:
            return
        spelled = path if ":" in path else ":".join(path.rsplit(".", 1))
        alternative = f" name it yourself ({option} {spelled}), or" if option.startswith("--") else ""
        raise InputError(
            f"{option}: {path} stands in a file, and following it may run code of the file's author. If you trust "
            f"them,{alternative} add --trust (in Python trust=True; for good, list the folder in {list_of_folders()})."
        )


def dotted(path: str) -> str:
    """Return an import path with dots only."""
    return path.replace(":", ".")


def user_trust(trust: bool = False) -> Trust:
    """Return the caller's trust in files: in all of them if `trust`, or with UNPERTURBED_TRUST=1 in the environment."""
    return Trust(everything=trust or os.environ.get("UNPERTURBED_TRUST") == "1")


OWN = Trust(everything=True)
"""The trust in paths that a caller passes from Python."""


def list_of_folders() -> Path:
    """Return the file with the folders that the user trusts."""
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / PACKAGE / "trusted"


def _listed() -> Iterator[Path]:
    try:
        lines = list_of_folders().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for line in lines:
        if Path(line.strip()).expanduser().is_absolute():
            yield Path(line.strip()).expanduser().resolve()


def _texts(value: object) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part)


def is_known(path: str) -> bool:
    """Tell whether a path leads into this package or a library of `KNOWN`."""
    return _root(path) in (PACKAGE, *KNOWN)


def follow(path: str, option: str, trust: Trust) -> object:
    """Import the object that a path names.

    Raises:
        InputError: before any import, if the caller did not name the path and it leads outside this package and the
        known libraries; and if the import fails or the name does not exist, with the nearest name.
    """
    module_name, name = _divided(path, option)
    trusted = trust.everything or dotted(path) in trust.named
    if not trusted and (not is_known(path) or "." in name or _lies_in_current_folder(_root(path))):
        trust.check(path, option)
    if trusted and not is_known(path):
        _look_in_current_folder()
    try:
        value: object = import_module(module_name)
    except Exception as error:  # any error of the module
        kind = "" if isinstance(error, ImportError | ValueError) else f"{type(error).__name__}: "
        raise InputError(
            f"{option}: cannot import {module_name!r} ({kind}{error}). A module cannot be imported unless it is "
            "installed or lies in the current folder: give package.module:Name."
        ) from error
    for part in name.split("."):
        if not hasattr(value, part):
            public = [attribute for attribute in dir(value) if attribute[0] != "_"]
            raise InputError(f"{option}: {module_name!r} has no {name!r}. {hint(part, public)}")
        value = getattr(value, part)
    if not trusted and _root(_home(value)) != _root(path):
        raise InputError(f"{option}: {name} of {module_name} comes from {_home(value)}, which a file may not name.")
    return value


def is_class_of(value: object, base: type) -> bool:
    """Tell whether `found` is a class of this kind."""
    return inspect.isclass(value) and issubclass(value, base)


def may_make(value: object, base: type, path: str, trust: Trust) -> bool:
    """Tell whether `found` is a class of this kind, or a function that returns one of them.

    A function that the caller names may leave its return type open. A function of a known library that a file names
    must state it; and of this package a file may name classes only: its functions open files and import further
    modules.
    """
    if inspect.isclass(value):
        return issubclass(value, base)
    if not is_function(value):
        return False
    returned = returned_type(value)
    stated = inspect.isclass(returned) and issubclass(returned, base)
    if trust.everything or dotted(path) in trust.named:
        return stated or not inspect.isclass(returned) or returned is object
    return stated and _root(path) != PACKAGE


def is_function(value: object) -> bool:
    """Tell whether `found` is a callable written in Python, outside of the standard library."""
    if isinstance(value, functools.partial):
        return is_function(value.func) or inspect.isclass(value.func)
    kinds = (FunctionType, MethodType)
    written = isinstance(value, kinds) or isinstance(vars(type(value)).get("__call__"), kinds)
    return written and not inspect.isclass(value) and _root(_home(value)) not in sys.stdlib_module_names


def returned_type(function: Any) -> Any:
    """Return the return annotation of a function; None without one."""
    try:
        return get_type_hints(getattr(function, "func", function)).get("return")
    except Exception:  # names in annotations that exist for type checkers only
        return None


def check_nested(value: object, option: str, trust: Trust, strings: bool) -> None:
    """Raise `InputError` where a value holds a `class_path` that is not followed; with `strings`, any import path.

    A text is looked at as what YAML makes of it, too: whoever converts it later may read it as such.
    """
    if isinstance(value, str):
        _check_text(value, option, trust, strings)
    elif isinstance(value, Mapping):
        for key, part in value.items():
            _check_entry(key, part, option, trust)
            check_nested(key, option, trust, strings)
            check_nested(part, option, trust, strings)
    elif isinstance(value, list | tuple | set | frozenset):
        for part in value:
            check_nested(part, option, trust, strings)


def check_argument(name: str, value: object, path: str, option: str, trust: Trust) -> None:
    """Raise `InputError` for an argument of a file by which the library that `path` leads into runs or fetches code.

    timm takes a model's name with a scheme, such as `hf-hub:` or `local-dir:`, for a place to load it from.
    """
    if name in RISKY and value:
        trust.check(name, option)
    if isinstance(value, str) and _root(path) in KNOWN and name not in trust.named and _has_scheme(value):
        trust.check(value, option)


def _has_scheme(text: str) -> bool:
    try:
        return bool(urlsplit(text.replace("_", "-")).scheme)  # timm takes hf_hub, too
    except ValueError:
        return True


def _check_text(text: str, option: str, trust: Trust, strings: bool) -> None:
    if strings:
        _check_words(text, option, trust)
    for part in yaml_parts(text, option):
        if isinstance(part, tuple):
            _check_entry(*part, option, trust)
        elif part != text:
            _check_text(part, option, trust, strings)


def _check_entry(key: object, part: object, option: str, trust: Trust) -> None:
    if key == "class_path":
        _check_reference(str(part), option, trust)
    if key in RISKY and part:
        trust.check(str(key), option)


def _check_words(text: str, option: str, trust: Trust) -> None:
    """Check every import path in a text, such as `list[package.Name]`; a dot or colon elsewhere is refused, too."""
    for word in WORDS.split(text):
        if PATH.fullmatch(word):
            _check_reference(word, option, trust)
        elif DIVIDED.search(word) and not NUMERAL.fullmatch(word):
            trust.check(text if len(text) <= 80 else f"{text[:77]}...", option)


def _check_reference(path: str, option: str, trust: Trust) -> None:
    """Allow a file to name layers of PyTorch and of the known libraries; anything else, only the caller may name."""
    if trust.everything or dotted(path) in trust.named:
        _look_in_current_folder()
        return
    if _root(path) not in (*KNOWN, "torch") or _lies_in_current_folder(_root(path)):
        trust.check(path, option)
    module_name, _, name = dotted(path).rpartition(".")
    try:
        value = getattr(import_module(module_name), name)
        layer = is_class_of(value, import_module("torch.nn").Module) and _root(_home(value)) == _root(path)
    except Exception:  # any error of a library whose optional part is missing
        layer = False
    if not layer:
        trust.check(path, option)


_APPENDED: list[Path] = []
"""Folders that `import_from_current_folder` has added to `sys.path`."""


def _look_in_current_folder() -> None:
    """Allow imports from the current folder, as the last entry of the path, so that no other module is shadowed."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
        _APPENDED.append(Path.cwd())


def _divided(path: str, option: str) -> tuple[str, str]:
    """Return the module and the name of an import path; raises `InputError` for anything else."""
    module_name, _, name = path.partition(":") if ":" in path else path.rpartition(".")
    if module_name.endswith(".py"):
        module = module_name[:-3].replace("/", ".")
        raise InputError(f"{option}: {path} names a file: name the module, not its file: {module}:{name}.")
    if not PATH.fullmatch(path) or ":" in name:
        raise InputError(f"{option}: cannot import {module_name!r}: {path!r} is not package.module:Name.")
    if _root(path) in sys.stdlib_module_names:
        raise InputError(
            f"{option}: {path} belongs to Python's standard library, which holds nothing of the kind: give your own."
        )
    return module_name, name


def _root(path: str) -> str:
    return re.split(r"[.:]", path)[0]


def _home(value: object) -> str:
    """Return the module that defines a class or function, or the class of any other object."""
    if isinstance(value, ModuleType):
        return value.__name__
    home = getattr(value, "__module__", None)
    return home if isinstance(home, str) else type(value).__module__


def _lies_in_current_folder(root: str) -> bool:
    """Tell whether a library would come from a folder that was added here: a file there may have its name."""
    try:
        spec = find_spec(root)
    except ValueError:  # the module exists without a spec
        return False
    paths = [] if spec is None else [spec.origin or "", *(spec.submodule_search_locations or ())]
    outside = [Path(path).resolve() for path in paths if path]
    return any(
        path.is_relative_to(folder) and not path.is_relative_to(Path(sys.prefix).resolve())
        for path in outside
        for folder in _APPENDED
    )
