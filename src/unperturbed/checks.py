"""Checks of arguments by their annotation's type and a range; errors name the value and the remedy.

The checks refuse text for a number, True for 1, 1.5 steps, NaN, a class for an object, or an empty path.
Dataclasses call `check_fields` when they are made; functions and constructors are decorated with `checked`. A number
must meet the rule of its argument, if it has one; annotations of unknown kinds are not checked.
"""

import functools
import inspect
import os
import re
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Integral, Number, Real
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from unperturbed.errors import InputError

P = ParamSpec("P")
R = TypeVar("R")
LARGEST = 3.4028234663852886e38
"""The largest number in float32, in which results are computed."""
MOST = 1_000_000
"""The largest number of steps, epochs or draws: more would not end."""
NUMERAL = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
"""A number as text."""
LONGEST_NAME = 255
"""Bytes that the name of a file or folder may have."""
PLACE = f"it is not empty, ~ is written out, and names have {LONGEST_NAME} bytes at most"
"""The conditions on paths, in words."""
REMEDIES = {
    "Module": "give a torch.nn.Module, the network itself; of a run folder, load_run(folder)",
    "Threat": "give a Threat, such as Threat.parse('Linf:8/255')",
    "Method": "give a method, such as AT()",
    "Maximiser": "give a maximiser, such as PGD(steps=10)",
    "Recipe": "give a Recipe, such as Recipe(epochs=10)",
    "Suite": "give a suite's name, such as 'standard', or a Suite",
}
"""The remedy where an object of a class is missing."""


@dataclass(frozen=True)
class Rule:
    """A condition on numbers: in words, such as "must be at least 1", and as a test."""

    says: str
    holds: Callable[[Any], bool]


FINITE = Rule("must be finite", lambda value: abs(value) <= LARGEST)
NOT_NEGATIVE = Rule("must be finite and not negative", lambda value: 0 <= value <= LARGEST)
POSITIVE = Rule("must be positive and finite", lambda value: 0 < value <= LARGEST)
SHARE = Rule("must lie in [0, 1]", lambda value: 0 <= value <= 1)
SHARE_BELOW_ONE = Rule("must lie in [0, 1)", lambda value: 0 <= value < 1)
AT_LEAST_ONE = Rule("must be at least 1 (and no more than a million)", lambda value: 1 <= value <= MOST)
NOT_MORE = Rule("must be no more than a million", lambda value: value <= MOST)
COUNT = Rule("must be at least 1", lambda value: 1 <= value < 2**63)
NONE_OR_MORE = Rule("must be 0 or more (and no more than a million)", lambda value: 0 <= value <= MOST)
SEED = Rule("must lie in [0, 2**63)", lambda value: 0 <= value < 2**63)
ANY = Rule("must be a number", lambda _: True)
"""For numbers whose range is checked with others'."""


def checked(**rules: Rule) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that checks arguments by a function's annotations, and numbers by these rules.

    The decorated function raises InputError for an argument that does not fit.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            arguments = signature.bind(*args, **kwargs)
            check_arguments(function, arguments, rules)
            return function(*arguments.args, **arguments.kwargs)

        return call

    return decorate


def check_arguments(function: Callable[..., Any], arguments: inspect.BoundArguments, rules: Mapping[str, Rule]) -> None:
    """Check bound arguments by the function's annotations, and numbers by these rules; raises InputError."""
    kinds, parameters = _kinds(function), arguments.signature.parameters
    for name, value in arguments.arguments.items():
        if name in kinds and value is not parameters[name].default:
            arguments.arguments[name] = check(name, value, kinds[name], rules.get(name))


def check_fields(instance: Any, **rules: Rule) -> None:
    """Check the fields of a dataclass by their annotations, and numbers by these rules; raises InputError."""
    described: Any = type(instance)
    kinds = _kinds(described)
    for field in fields(instance):
        if field.name in kinds:
            value = getattr(instance, field.name)
            fitting = check(field.name, value, kinds[field.name], rules.get(field.name))
            if fitting is not value:
                object.__setattr__(instance, field.name, fitting)


def check(name: str, value: Any, kind: Any, rule: Rule | None = None) -> Any:
    """Return the value, with NumPy numbers as Python numbers, and lists as tuples where a tuple is expected.

    Raises:
        InputError: if the value is not of this kind, or a number does not meet the rule.
    """
    kinds = _alternatives(kind)
    if isinstance(value, str) and any(
        inspect.isclass(alternative) and issubclass(alternative, os.PathLike) for alternative in kinds
    ):
        if not _is_place(value):
            raise InputError(f"{name} is {value!r:.80}, but must be a path{_or_none(kinds)}: {PLACE}.")
    for alternative in kinds:
        fitting, fits = _as_kind(name, value, alternative, rule)
        if fits:
            several = isinstance(fitting, tuple | list)
            bound = rule or FINITE
            for index, number in enumerate(fitting if several else (fitting,)):
                if _is_number(number) and not _meets(number, bound):
                    option = f"{name}[{index}]" if several else name
                    raise InputError(f"{option} is {number!r:.80}, but {bound.says}{_or_none(kinds)}.")
            return fitting
    expected = " or ".join(
        dict.fromkeys(_kind_name(alternative) for alternative in kinds if alternative is not type(None))
    )
    says = f", and {rule.says}" if rule is not None and {int, float} & set(kinds) else ""
    remedy = next(
        (
            f": {REMEDIES[alternative.__name__]}"
            for alternative in kinds
            if getattr(alternative, "__name__", "") in REMEDIES
        ),
        "",
    )
    if remedy:
        raise InputError(f"{name} is {_shown(value)}{remedy}.")
    raise InputError(f"{name} is {_shown(value)}, but must be {expected}{says}{_or_none(kinds)}.")


def check_numeral(option: str, text: Any, value: Any) -> None:
    """Raise InputError for a number in an unusual notation: 1:30, 0x10, 1_000, digits of other scripts, .inf."""
    if _is_number(value) and isinstance(text, str) and not NUMERAL.fullmatch(text.strip()):
        raise InputError(f"{option} is {text!r}: write a number such as 10, 0.5 or 1e-3.")


@functools.cache
def _kinds(described: Any) -> Mapping[str, Any]:
    """Return the annotations of a function's parameters or of a class's fields; empty if they cannot be read."""
    try:
        return get_type_hints(described)
    except (NameError, TypeError, AttributeError):
        return {}


def _alternatives(kind: Any) -> tuple[Any, ...]:
    if get_origin(kind) in (Union, types.UnionType):
        return tuple(inner for option in get_args(kind) for inner in _alternatives(option))
    return (kind,)


def _as_kind(name: str, value: Any, kind: Any, rule: Rule | None) -> tuple[Any, bool]:
    """Return the value converted to this kind, and whether it is of the kind."""
    origin = get_origin(kind)
    if kind in (int, float, bool):
        plain: Any = getattr(value, "item", lambda: value)() if isinstance(value, Number) else value
        if type(plain).__name__ == "bool" or type(value).__name__ == "bool_":
            return bool(plain), kind is bool
        return plain, kind is not bool and isinstance(plain, Integral if kind is int else Real)
    if kind is type(None):
        return value, value is None
    if kind is str:
        return value, isinstance(value, str)
    if origin is Literal:
        return value, any(isinstance(value, type(choice)) and value == choice for choice in get_args(kind))
    if origin in (tuple, list, Sequence):
        return _as_sequence(name, value, kind, rule)
    if origin is Mapping or kind is Mapping:
        return _as_mapping(name, value, kind)
    if origin is Callable or kind is Callable:
        return value, callable(value)
    module = getattr(kind, "__module__", "")
    if getattr(kind, "_is_protocol", False) and "__call__" in vars(kind):
        return value, callable(value) and not inspect.isclass(value)
    if not inspect.isclass(kind) or getattr(kind, "_is_protocol", False) or module.startswith(("jaxtyping", "typing")):
        return value, True
    if issubclass(kind, os.PathLike):
        return value, isinstance(value, kind) and _is_place(os.fspath(value))
    takes_functions = "__call__" in vars(kind) and kind.__name__ != "Module"  # a function may do as a maximiser
    stands_in = takes_functions and callable(value) and not inspect.isclass(value)
    return value, kind is object or isinstance(value, kind) or stands_in


def _as_sequence(name: str, value: Any, kind: Any, rule: Rule | None) -> tuple[Any, bool]:
    if hasattr(value, "tolist") and getattr(value, "ndim", 0) == 1 and not hasattr(value, "mask"):
        value = value.tolist()
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        return value, False
    inner = get_args(kind)
    if get_origin(kind) is tuple and not (len(inner) == 2 and inner[1] is ...):
        if len(inner) != len(value):
            return value, False
        items = [check(name, item, item_kind, rule) for item, item_kind in zip(value, inner, strict=True)]
    else:
        items = [check(f"{name}[{index}]", item, inner[0], rule) for index, item in enumerate(value)]
    changed = any(new is not old for new, old in zip(items, value, strict=True))
    if get_origin(kind) is tuple:
        return (value if isinstance(value, tuple) and not changed else tuple(items)), True
    return (items if changed else value), True


def _as_mapping(name: str, value: Any, kind: Any) -> tuple[Any, bool]:
    """Return a mapping, and whether it is one; its keys and values are checked by their annotations."""
    if not isinstance(value, Mapping):
        return value, False
    if len(inner := get_args(kind)) == 2:
        for key, item in value.items():
            check(f"a name in {name}", key, inner[0])
            check(f"{name}[{key!r}]", item, inner[1])
    return value, True


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _meets(number: Any, rule: Rule) -> bool:
    try:
        return bool(rule.holds(number))  # NaN meets none
    except (OverflowError, ArithmeticError):  # an integer beyond the range of floats
        return False


def is_file_name(text: str) -> bool:
    """Tell whether a text names a file within a folder: no path, and no way out of the folder."""
    return text not in ("", ".", "..") and not re.search(r"[/\\\0]", text)


def _is_place(text: str | bytes) -> bool:
    parts = os.fsdecode(text).split(os.sep)
    names_fit = all(len(os.fsencode(part)) <= LONGEST_NAME for part in parts)
    return bool(os.fsdecode(text).strip()) and "\0" not in os.fsdecode(text) and parts[0] != "~" and names_fit


def _kind_name(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    names = {int: "a whole number", float: "a number", bool: "True or False", str: "text"}
    if kind in names:
        return names[kind]
    if origin is Literal:
        choices = ", ".join(map(str, inner))
        return f"one of {choices}" if len(inner) > 1 else repr(inner[0])
    if origin is Mapping:
        return f"a dictionary from {_kind_name(inner[0])} to {_kind_name(inner[1])}" if inner else "a dictionary"
    if origin in (tuple, list, Sequence):
        return f"a list, of {_kind_name(inner[0]).removeprefix('a ')} each" if inner else "a list"
    if origin is Callable or kind is Callable:
        return "a function"
    name = getattr(kind, "__name__", str(kind))
    return "a torch.nn.Module" if name == "Module" else f"a{'n' * (name[:1] in 'AEIOUaeiou')} {name}"


def _or_none(kinds: Sequence[Any]) -> str:
    return ", or None" if type(None) in kinds else ""


def _shown(value: Any) -> str:
    """Return the text of a value in a message: shortened, or the type's name where the text says nothing."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # any error of a user's object
        text = f"of type {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."
