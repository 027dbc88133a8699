"""Options of options: `--method awp --method.method trades --method.method.beta 3`, from text to objects."""

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentError, ArgumentParser

from unperturbed.checks import check_numeral
from unperturbed.errors import InputError
from unperturbed.imports import OWN, RISKY, Trust, check_nested, dotted, follow, is_class_of, may_make
from unperturbed.specs.catalogue import NOUNS, expand, hint, short

ABSENT: Any = object()
"""In the place of a value, default or annotation that is not there (None may well be one)."""
BASES = {"methods": "unperturbed.methods.base.Method", "maximise": "unperturbed.maximise.ascent.Maximiser"}
MODULE = "torch.nn.Module"
FOLDERS = {"method": "methods", "maximiser": "maximise"}
"""Where the names of a parameter's values are listed, for parameters without an annotation."""


@dataclass
class Tree:
    """What was given for an option (ABSENT: nothing), and for the options below it."""

    value: object = ABSENT
    options: dict[str, "Tree"] = field(default_factory=dict)

    def put(self, keys: list[str], value: object) -> None:
        """Set the option that `keys` lead to; a mapping sets what is below it (class_path and init_args as usual)."""
        node = self
        for key in keys:
            node = node.options.setdefault(key, Tree())
        if not isinstance(value, Mapping):
            node.value = value
            return
        for key, below in value.items():
            if key == "class_path":
                node.value = below
            elif key == "init_args":
                node.put([], below)
            else:
                node.put([str(key)], below)

    def under(self, other: "Tree") -> "Tree":
        """Return this tree with `other` laid over it; another value at a node drops what this one has below it."""
        if other.value is not ABSENT and other.value != self.value:
            return other
        options = dict(self.options)
        for key, node in other.options.items():
            options[key] = options[key].under(node) if key in options else node
        return Tree(self.value, options)

    def plain(self) -> object:
        """Return the value, or the mapping, that was given."""
        return {key: node.plain() for key, node in self.options.items()} if self.options else self.value


@dataclass(frozen=True)
class Choice:
    """A class (or function) and the arguments it will be called with; they may be choices themselves."""

    target: Callable[..., object]
    arguments: Mapping[str, object]

    def build(self) -> Any:
        """Call the class with its arguments."""
        return self.target(
            **{key: value.build() if isinstance(value, Choice) else value for key, value in self.arguments.items()}
        )


@dataclass(frozen=True)
class Parameter:
    """A parameter of a class or function: its annotation, and its default (ABSENT: none)."""

    name: str
    annotation: Any
    default: Any

    @property
    def folder(self) -> str | None:
        """The folder of the package that lists what may be given here, or None for a plain value."""
        for each in (self.annotation, *get_args(self.annotation)):
            for base in inspect.getmro(each) if inspect.isclass(each) else ():
                if f"{base.__module__}.{base.__qualname__}" in BASES.values():
                    return base.__module__.split(".")[1]
        return FOLDERS.get(self.name) if self.annotation is ABSENT else None


def parameters_of(target: Callable[..., object]) -> dict[str, Parameter]:
    """Return the named parameters of a class or function."""
    described = dataclasses.fields(target) if inspect.isclass(target) and dataclasses.is_dataclass(target) else ()
    factories = {each.name: each.default_factory for each in described}
    function = target.__init__ if inspect.isclass(target) else target
    try:
        hints = get_type_hints(function)
    except (NameError, TypeError):
        hints = {}
    parameters = {}
    for name, each in inspect.signature(target).parameters.items():
        if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD):
            continue
        factory = factories.get(name, dataclasses.MISSING)
        default = ABSENT if each.default is each.empty else each.default
        made = default if factory is dataclasses.MISSING else factory()
        parameters[name] = Parameter(name, hints.get(name, ABSENT), made)
    return parameters


def choose(
    tree: Tree,
    folder: str,
    option: str,
    default: object = ABSENT,
    filled: Iterable[str] = (),
    trust: Trust = OWN,
) -> Choice:
    """Return the class that a tree names, with the arguments that it gives.

    Without a name, the tree's options go on top of the object `default`. An option that is not a parameter of the class
    but one of its maximiser's is passed on to it: `--method at --method.steps 10` sets the steps of the default
    maximiser of `at` and keeps its other settings. `filled` names parameters that will be given later; `trust` says
    which import paths are followed (the caller's own: all).

    Raises `InputError` for unknown names and options (with the nearest), values of a wrong type, and missing ones.
    """
    if tree.value is ABSENT and (default is ABSENT or default is None):
        first = next(iter(tree.options), "...")
        raise InputError(f"--{option}.{first} is an option of --{option}, which is not named: add it.")
    start = _described(default) if tree.value is ABSENT else Choice(_target(tree.value, folder, option, trust), {})
    parameters = parameters_of(start.target)
    arguments = dict(start.arguments)
    passed_on = {}
    for key, below in tree.options.items():
        if key in RISKY and below.plain():
            trust.check(key, f"--{option}.{key}")
        if key in parameters:
            arguments[key] = _argument(below, parameters[key], f"{option}.{key}", trust)
        elif _takes_anything(start.target):
            arguments[key] = convert(below.plain(), Any, f"{option}.{key}", trust)
        else:
            passed_on[key] = below

    if passed_on:
        inner = arguments.get("maximiser", parameters["maximiser"].default if "maximiser" in parameters else ABSENT)
        for key in passed_on:
            if key not in _reachable(inner):
                known = [*parameters, *_reachable(inner)]
                raise InputError(
                    f"--{option} has no option {key!r} for {_label(start.target, folder)}. {hint(key, known)}"
                )
        arguments["maximiser"] = choose(Tree(ABSENT, passed_on), "maximise", f"{option}.maximiser", inner, trust=trust)

    for name, parameter in parameters.items():
        if parameter.default is ABSENT and name not in arguments and name not in filled:
            raise InputError(f"--{option} {_label(start.target, folder)} needs a value: give --{option}.{name}.")
    return Choice(start.target, arguments)


def _target(value: object, folder: str, option: str, trust: Trust) -> Callable[..., object]:
    """Return the class or function that a name stands for; raises `InputError` if the folder could not hold it."""
    path = expand(str(value), folder, f"--{option}")
    ours = OWN if path != dotted(str(value)) else trust  # a short name
    found: Any = follow(path, f"--{option}", ours)
    base: Any = follow(BASES.get(folder, MODULE), option, OWN)
    fits = is_class_of(found, base) if folder in BASES else may_make(found, base, path, ours)
    if not fits:
        wanted = f"a subclass of {BASES[folder]}" if folder in BASES else "a class or function that makes a model"
        raise InputError(f"--{option}: {value} is not {wanted}, so it is no {NOUNS[folder]}.")
    target: Callable[..., object] = found
    return target


def _argument(tree: Tree, parameter: Parameter, option: str, trust: Trust) -> object:
    if parameter.folder is None or (tree.value is None and not tree.options):
        return convert(tree.plain(), parameter.annotation, f"--{option}", trust)
    return choose(tree, parameter.folder, option, parameter.default, trust=trust)


def _described(instance: object) -> Choice:
    """Return the choice that makes an object like this one, from its attributes of the parameters' names."""
    if isinstance(instance, Choice):
        return instance
    attributes = {name: getattr(instance, name) for name in parameters_of(type(instance)) if hasattr(instance, name)}
    return Choice(type(instance), attributes)


def _reachable(maximiser: object) -> list[str]:
    """Return the options of a maximiser, and of the ones inside it."""
    if maximiser is ABSENT or maximiser is None:
        return []
    choice = _described(maximiser)
    parameters = parameters_of(choice.target)
    inner = choice.arguments.get("maximiser", parameters["maximiser"].default if "maximiser" in parameters else ABSENT)
    return [*parameters, *_reachable(inner)]


def _takes_anything(target: Callable[..., object]) -> bool:
    return any(each.kind is each.VAR_KEYWORD for each in inspect.signature(target).parameters.values())


def _label(target: object, folder: str) -> str:
    return short(_path(target), folder)


def _path(target: Any) -> str:
    return f"{target.__module__}.{target.__qualname__}"


def convert(value: object, annotation: Any, option: str, trust: Trust = OWN) -> Any:
    """Return a value, given as text or by YAML, as its annotation says.

    Raises `InputError` where it cannot be, and for import paths in it that are not followed, before any import.
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
        name = annotation.__name__ if inspect.isclass(annotation) else str(annotation).replace("typing.", "")
        choices = " or ".join(map(repr, get_args(annotation))) if get_origin(annotation) is Literal else ""
        raise InputError(f"{option} is {value!r}, but must be {choices or f'of type {name}'}.") from error
    check_numeral(option, value, converted)
    return converted


def _is_plain(annotation: Any) -> bool:
    """Tell whether no value of this annotation is an import path: neither a class nor a function is wanted."""
    plain = annotation in (ABSENT, Any, None, type(None), object, str, int, float, bool, list, tuple, dict, Path, ...)
    if plain or get_origin(annotation) is Literal or isinstance(annotation, str):
        return True
    parts = get_args(annotation)
    return bool(parts) and get_origin(annotation) not in (type, Callable) and all(_is_plain(part) for part in parts)


def written(value: object) -> Any:
    """Return a choice, an object or a plain value as YAML takes it: with every argument, the defaults included."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): written(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [written(each) for each in value]
    if inspect.isroutine(value):
        return ":".join(_path(value).rsplit(".", 1))
    choice = _described(value)
    arguments = {name: parameter.default for name, parameter in parameters_of(choice.target).items()}
    arguments |= choice.arguments
    folder = choice.target.__module__.split(".")[1] if choice.target.__module__.startswith("unperturbed.") else ""
    return {
        "class_path": short(_path(choice.target), folder),
        "init_args": {key: written(each) for key, each in arguments.items() if each is not ABSENT},
    }
