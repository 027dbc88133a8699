"""What an examination of one network found: numbers, distributions and lines."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Number:
    """A measured number with the count behind it.

    Attributes:
        name: what it is; the same for every model, so that models can be compared.
        value: finite.
        n: the number of examples, layers or other units that it was measured on.
        low: lower end of its 95% interval; None: it has none.
        high: upper end.
        unit: what it is counted in; "%": a share, shown as a percentage.
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
        ids: of the examples, in the same order: what pairs one model's values with another's.
        unit: what they are counted in.
        log: whether they are positive and best seen on a logarithmic scale.
        missing: examples left out, because their value was not finite or could not be found.
    """

    name: str
    values: tuple[float, ...]
    ids: tuple[int, ...]
    unit: str = ""
    log: bool = False
    missing: int = 0


@dataclass(frozen=True)
class Line:
    """A value at each of several places, say the layers.

    Attributes:
        name: what it is; the same for every model.
        x: names of the places in order, or numbers.
        y: the values; None where there is none.
        low: lower ends of a range around each, where there is one; `about` says which.
        high: upper ends.
        across: what x is.
        unit: what y is counted in.
        log: whether y is positive and best seen on a logarithmic scale.
        about: what the range is, and how many examples are behind each value.
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
    """What one diagnostic found in one network.

    Attributes:
        title: what was examined.
        summary: the outcome in a plain sentence or two.
        numbers: single numbers.
        distributions: a value an example.
        lines: a value a layer, or a curve.
        notes: what could not be analysed, and what a reader of the numbers must know.
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
        """Return the finding that `json` wrote, read back."""
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
