"""The record of a run, `config.yaml`; only this file reads and writes it."""

import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from unperturbed.errors import InputError, hint
from unperturbed.runs.files import CONFIG, check_links, read_yaml, write_yaml

MOST_ROWS = 10_000_000
SCHEMA = 4
"""The schema of new records. Schema 1 had no number and no network and data of Python runs; up to 2, an inner method
was named `objective`; up to 3, the choice of precision had no compilation and no times."""
T = TypeVar("T")
UNSAID: Any = object()
"""The bounds of a record without bounds, which are then those of the data."""


@dataclass(frozen=True)
class ModelSpec:
    """The specification of a network: a short name or import path, and the arguments."""

    class_path: str
    init_args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Network:
    """The trained network: its class, a hash of its modules and shapes, and the number of its weights."""

    class_path: str
    architecture: str
    parameters: int


@dataclass(frozen=True)
class TrainedOn:
    """The training examples, including held-out ones.

    Attributes:
        name: of the data.
        examples: their number.
        shape: of one example.
        rows: their positions in the training split of the data, as in "0-199,310"; None if the text would be too long.
    """

    name: str
    examples: int
    shape: tuple[int, ...]
    rows: str | None = None


@dataclass(frozen=True)
class RunRecord:
    """The record of a training or, in a folder of evaluations only, of the evaluated network.

    Attributes:
        threat: such as "Linf:0.1".
        bounds: the lowest and highest inputs, numbers or nested lists of an example's shape; None: no bounds.
        data: the place or name of the data; None: passed from Python, without a place.
        classes: their names.
        features: the names of a table's features, in order.
        examples: the requested number of training examples; None: all.
        extra: the place of further training data.
        model: the specification of the network; None: it was built in Python, unknown to the command.
        weights: the file of its first (or, in a folder of evaluations, its only) weights.
        output: the part of the network's output with the logits.
        scale: the factor of its first layer.
        normalise: the means, then the standard deviations, of its first layer.
        method: class path and arguments.
        recipe: the fields of the recipe.
        chosen: the automatic choices, with a hash of the training data.
        network: the trained network.
        trained_on: the training examples.
        notes: entries from the caller of `train`.
        unperturbed: the version that wrote it.
        schema: of the record; 1 if a file has none.
    """

    threat: str
    bounds: Any = UNSAID
    data: str | None = None
    classes: tuple[str, ...] | None = None
    features: tuple[str, ...] | None = None
    examples: int | str | None = None
    extra: str | None = None
    model: ModelSpec | None = None
    weights: str | None = None
    output: int | str | None = None
    scale: float | None = None
    normalise: tuple[float, ...] | None = None
    method: Mapping[str, Any] | str | None = None
    recipe: Mapping[str, Any] | None = None
    chosen: Mapping[str, Any] | None = None
    network: Network | None = None
    trained_on: TrainedOn | None = None
    notes: Mapping[str, Any] | None = None
    unperturbed: str | None = None
    schema: int = 1

    @classmethod
    def read(cls, folder: Path) -> "RunRecord":
        """Return the record of a run folder.

        Raises:
            InputError: if there is none, or an entry is unknown, missing or of a wrong type.
        """
        path = folder / CONFIG
        if not path.is_file() and folder.parts[:1] == ("hf:",):
            name = "/".join(folder.parts[1:])
            raise InputError(f"The run of the hub {name} is not on this machine: unperturbed pull {name}.")
        if not path.is_file():
            raise InputError(f"{folder} is no run folder: there is no file {CONFIG} in it. Give one that train made.")
        check_links(folder)
        content = read_yaml(path)
        if content.get("schema", 1) in (1, 2) and isinstance(content.get("method"), Mapping):
            content = {**content, "method": _renamed(content["method"])}
        return cls.of(content, path)

    @classmethod
    def of(cls, content: Mapping[str, Any], where: object) -> "RunRecord":
        """Return the record in a mapping; `where` names its file in errors."""
        record = _from_mapping(cls, content, str(where), "")
        if not 1 <= record.schema <= SCHEMA:
            raise _wrong(where, "schema", record.schema, f"1 to {SCHEMA} (newer versions write higher ones)")
        _check_threat(record, where)
        if record.bounds is not None and record.bounds is not UNSAID:
            _check_bounds(record.bounds, where)
        needed = ("bounds", "method", "recipe", "chosen")  # of a training
        absent = [name for name in needed if name not in content or (name != "bounds" and content[name] is None)]
        if absent and not {"method", "recipe", "chosen"} <= {*absent}:
            raise InputError(f"{where} has no {absent[0]}: restore it, or train again.")
        if isinstance(record.method, Mapping):
            _check_tree(record.method, where, "method")
        _check_numbers(record, where)
        return record

    def plain(self) -> dict[str, Any]:
        """Return the content of `config.yaml`: a mapping of plain values, without empty entries."""
        always = ("data", "classes", "examples", "extra", "weights") if self.recipe is not None else ("weights",)
        order = ("schema", "unperturbed", *(field.name for field in fields(self)))
        values = {name: plain(getattr(self, name)) for name in order}
        stated = {name: value for name, value in values.items() if value is not UNSAID}
        return {name: value for name, value in stated.items() if value is not None or name in ("bounds", *always)}

    def write(self, folder: Path) -> None:
        """Write it into a run folder."""
        write_yaml(folder / CONFIG, self.plain())

    @property
    def strength(self) -> float:
        """The radius of the training: 0 without an attack, or if unknown."""
        method = self.method
        if method is None:
            return 0.0
        while isinstance(method, Mapping) and isinstance(
            inner := (method.get("init_args") or {}).get("method"), Mapping
        ):
            method = inner  # a wrapper perturbs like its inner method
        path = method.get("class_path") if isinstance(method, Mapping) else method
        ordinary = str(path) == "erm" or str(path).endswith("erm.ERM")
        return 0.0 if ordinary else _radius(self.threat)


def _renamed(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return a method of an earlier schema with the present names, at any depth."""
    names = {"objective": "method", "objective_loss": "method_loss"}
    return {names.get(name, name): _renamed(part) if isinstance(part, Mapping) else part for name, part in tree.items()}


def _from_mapping(kind: type[T], content: object, where: str, prefix: str) -> T:
    """Return a dataclass from a mapping, checked field by field."""
    if not isinstance(content, Mapping):
        raise _wrong(where, prefix.rstrip("."), content, "a mapping")
    hints = get_type_hints(kind)
    unknown = [str(key) for key in content if key not in hints]
    if unknown:
        field_name = prefix + unknown[0]
        raise InputError(f"{where} holds the unknown field {field_name!r}: take it out. {hint(unknown[0], hints)}")
    values = {}
    for entry in fields(kind):  # type: ignore[arg-type]
        if entry.name in content:
            values[entry.name] = _checked(content[entry.name], hints[entry.name], where, prefix + entry.name)
        elif entry.default is MISSING and entry.default_factory is MISSING:
            raise InputError(f"{where} has no field {prefix + entry.name!r}: restore it, or train again.")
    return kind(**values)


def _checked(value: Any, hint: Any, where: str, name: str) -> Any:
    """Return a value of a field, tuples for lists and dataclasses for mappings; raises InputError for another type."""
    if hint is Any:
        return value
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in parts:
            return None
        for part in parts:
            if part is not type(None) and _fits(value, part):
                return _checked(value, part, where, name)
        raise _wrong(where, name, value, " or ".join(map(_noun, parts)))
    if not _fits(value, hint):
        raise _wrong(where, name, value, _noun(hint))
    if is_dataclass(hint):
        return _from_mapping(hint, value, where, f"{name}.")  # type: ignore[arg-type]
    if origin is tuple:
        return tuple(_checked(part, parts[0], where, f"{name}[{k}]") for k, part in enumerate(value))
    return value


def _fits(value: Any, hint: Any) -> bool:
    if is_dataclass(hint) or get_origin(hint) is Mapping:
        return isinstance(value, Mapping)
    if get_origin(hint) is tuple:
        return isinstance(value, list | tuple)
    if hint in (int, float):
        return isinstance(value, int | hint) and not isinstance(value, bool) and value == value
    return isinstance(value, hint) and value != ""


def _noun(hint: Any) -> str:
    if is_dataclass(hint) or get_origin(hint) is Mapping:
        return "a mapping"
    if get_origin(hint) is tuple:
        return "a list"
    return {int: "a whole number", float: "a number", str: "text", type(None): "null"}.get(hint, str(hint))


def _wrong(where: object, name: str, value: object, expected: str) -> InputError:
    shown = name or "the content"
    return InputError(f"{where}: {shown} is {_short(value)}, but must be {expected}. Restore it, or train again.")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _radius(threat: str) -> float:
    number, _, divisor = threat.partition(":")[2].partition("[")[0].partition("/")
    return float(number) / float(divisor or 1)


def _check_threat(record: RunRecord, where: object) -> None:
    try:
        fine = math.isfinite(_radius(record.threat)) and _radius(record.threat) >= 0
    except (ValueError, ZeroDivisionError):
        fine = False
    if not fine or record.threat.partition(":")[0] not in ("Linf", "L2", "L1", "L0"):
        raise _wrong(where, "threat", record.threat, "a norm and a radius, such as Linf:8/255")


def _check_bounds(bounds: Any, where: object) -> None:
    def numbers(value: Any) -> Any:
        """Return the shape of nested lists of numbers; None for other values."""
        if isinstance(value, list | tuple):
            shapes = {numbers(part) for part in value}
            return (len(value), *shapes.pop()) if len(shapes) == 1 and None not in shapes else None
        return () if isinstance(value, int | float) and not isinstance(value, bool) and value == value else None

    low_high = isinstance(bounds, list | tuple) and len(bounds) == 2
    if not low_high or numbers(bounds[0]) is None or numbers(bounds[1]) is None:
        raise _wrong(where, "bounds", bounds, "null, or a list of the lowest and the highest input")
    try:
        low, high = (np.asarray(side, dtype=float) for side in bounds)
        empty = bool((low > high).any())
    except (ValueError, OverflowError):  # shapes that do not broadcast, or integers beyond the range of floats
        empty = True
    if empty:
        raise _wrong(where, "bounds", bounds, "the lowest input, then the highest, for each feature or for all of them")


def _check_tree(tree: Mapping[str, Any], where: object, name: str) -> None:
    path, arguments = tree.get("class_path"), tree.get("init_args")
    if not isinstance(path, str) or not path:
        raise _wrong(where, f"{name}.class_path", path, "text")
    if arguments is not None and not isinstance(arguments, Mapping):
        raise _wrong(where, f"{name}.init_args", arguments, "a mapping")
    for key, value in (arguments or {}).items():
        if isinstance(value, Mapping) and "class_path" in value:
            _check_tree(value, where, f"{name}.init_args.{key}")


def _check_numbers(record: RunRecord, where: object) -> None:
    """Check the settings of a training that other code computes with."""
    for part, name, kinds in (
        ("recipe", "seed", int),
        ("recipe", "epochs", int),
        ("recipe", "validation", int | float),
        ("chosen", "training_examples", int),
        ("chosen", "held_out_examples", int),
        ("chosen", "data", str),
    ):
        value = (getattr(record, part) or {}).get(name)
        missing = part == "recipe" and record.recipe is not None and value is None
        if missing or (value is not None and (not isinstance(value, kinds) or isinstance(value, bool))):
            raise _wrong(where, f"{part}.{name}", value, "text" if kinds is str else "a number")
        if isinstance(value, int | float) and (value < 0 or (name == "validation" and not value < 1)):
            raise _wrong(where, f"{part}.{name}", value, "in [0, 1)" if name == "validation" else "at least 0")


def plain(value: Any) -> Any:
    """Return a part of a record for YAML."""
    if is_dataclass(value):
        values = {field.name: plain(getattr(value, field.name)) for field in fields(value)}
        return {name: part for name, part in values.items() if part is not None and part != {}}
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, list | tuple) else value


def write_rows(rows: list[int], longest: int = 100_000) -> str | None:
    """Return positions as text, "0-199,310"; None if it would be too long."""
    parts, start = list[str](), 0
    for k in range(1, len(rows) + 1):
        if k == len(rows) or rows[k] != rows[k - 1] + 1:
            parts.append(f"{rows[start]}-{rows[k - 1]}" if k - 1 > start else f"{rows[start]}")
            start = k
    text = ",".join(parts)
    return text if len(text) <= longest else None


def read_rows(text: str, where: object) -> list[int]:
    """Return the positions from the text of `write_rows`; raises InputError for another text."""
    spans = list[tuple[int, int]]()
    for part in text.split(","):
        low, dash, high = part.partition("-")
        if not low.isdecimal() or (dash and not high.isdecimal()):
            raise _wrong(where, "trained_on.rows", text, "positions, such as 0-199,310")
        spans.append((int(low), int(high if dash else low) + 1))
    if sum(max(0, end - start) for start, end in spans) > MOST_ROWS:
        raise _wrong(where, "trained_on.rows", text, f"at most {MOST_ROWS:,} positions")
    return [row for start, end in spans for row in range(start, end)]
