"""The findings of an examination of one network: numbers, distributions and lines."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


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
        """Return the finding from the output of `json`."""
        return cls(
            value["title"],
            value["summary"],
            tuple(Number(**entry) for entry in value["numbers"]),
            tuple(Distribution(**_tuples(entry)) for entry in value["distributions"]),
            tuple(Line(**_tuples(entry)) for entry in value["lines"]),
            tuple(value["notes"]),
        )


def _tuples(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(entry) if isinstance(entry, list) else entry for key, entry in value.items()}
