"""The findings of an examination of one network: numbers, distributions and lines."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


@dataclass(frozen=True)
class Number:
    """A measured number with the count behind it.

    Attributes:
        name: what it is; the same for every model, so that models can be compared.
        value: finite.
        n: the number of measured examples, layers or other units.
        low: lower end of its 95% interval, or None.
        high: upper end.
        unit: its unit; "%": a share, shown as a percentage.
    """

    name: str
    value: float
    n: int
    low: float | None = None
    high: float | None = None
    unit: str = ""

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> "Number":
        """Return the number from plain values; raises TypeError for other values."""
        return typed(cls, value)


@dataclass(frozen=True)
class Distribution:
    """One value for each of many examples.

    Attributes:
        name: what it is; the same for every model.
        values: finite.
        ids: of the examples, in the same order; they pair the values of several models.
        unit: their unit.
        log: whether they are positive and best seen on a logarithmic scale.
        missing: number of examples without a finite value.
    """

    name: str
    values: tuple[float, ...]
    ids: tuple[int, ...]
    unit: str = ""
    log: bool = False
    missing: int = 0


@dataclass(frozen=True)
class Line:
    """A value at several positions, such as the layers.

    Attributes:
        name: what it is; the same for every model.
        x: names of the positions in order, or numbers.
        y: the values; None for a missing one.
        low: lower ends of a range around the values, or None; `about` describes the range.
        high: upper ends.
        across: the noun for x.
        unit: the unit of y.
        log: whether y is positive and best seen on a logarithmic scale.
        about: the kind of the range, and the number of examples behind a value.
    """

    name: str
    x: tuple[str, ...] | tuple[float, ...]
    y: tuple[float | None, ...]
    low: tuple[float | None, ...] | None = None
    high: tuple[float | None, ...] | None = None
    across: str = "layer"
    unit: str = ""
    log: bool = False
    about: str = ""


@dataclass(frozen=True)
class Finding:
    """The result of one diagnostic for one network.

    Attributes:
        title: the examined property.
        summary: the outcome in a plain sentence or two.
        numbers: single numbers.
        distributions: one value per example.
        lines: one value per layer, or a curve.
        notes: failed parts of the analysis, and remarks for the reader.
    """

    title: str
    summary: str
    numbers: tuple[Number, ...] = ()
    distributions: tuple[Distribution, ...] = ()
    lines: tuple[Line, ...] = ()
    notes: tuple[str, ...] = ()

    def json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> "Finding":
        """Return the finding from the output of `json`; raises TypeError or KeyError for other values."""
        parts: dict[str, Any] = {
            "numbers": tuple(Number.of(entry) for entry in value["numbers"]),
            "distributions": tuple(typed(Distribution, entry) for entry in value["distributions"]),
            "lines": tuple(typed(Line, entry) for entry in value["lines"]),
        }
        finding = typed(cls, {name: value[name] for name in ("title", "summary", "notes")})
        for distribution in parts["distributions"]:
            _check_lengths(distribution.name, distribution.values, distribution.ids)
        for line in parts["lines"]:
            _check_lengths(line.name, line.x, line.y, line.low, line.high)
        return replace(finding, **parts)


def typed(kind: type[T], entry: Mapping[str, Any]) -> T:
    """Return an object of plain values; raises TypeError for values of other types, and numbers that are not finite."""
    hints, values = get_type_hints(kind), dict[str, Any]()
    for name, given in entry.items():
        value = tuple(given) if isinstance(given, list) else given
        if name not in hints or not _fits(value, hints[name]):
            raise TypeError(f"{name:.40} is {given!r:.80}, which does not fit")
        values[name] = value
    return kind(**values)


def _fits(value: Any, hint: Any) -> bool:
    parts = get_args(hint)
    if get_origin(hint) is Literal:
        return isinstance(value, str) and value in parts
    if get_origin(hint) is UnionType:
        return any(_fits(value, part) for part in parts)
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_fits(entry, parts[0]) for entry in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def _check_lengths(name: str, *columns: Sequence[Any] | None) -> None:
    if len({len(column) for column in columns if column is not None}) > 1:
        raise TypeError(f"the values of {name!r:.80} are more or fewer than their positions")
