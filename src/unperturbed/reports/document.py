"""A report as plain data: sections of paragraphs, tables, charts and pictures, from which every format is made."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Place = str | float
"""A position on an axis: a number, or the name of a category."""


@dataclass(frozen=True)
class Paragraph:
    """One or more plain sentences."""

    text: str


@dataclass(frozen=True)
class Alert:
    """What a reader must know before the numbers: a headline, and a line for each reason."""

    text: str
    points: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tile:
    """A headline number.

    Attributes:
        label: what it is.
        value: as text, such as "48.7%".
        interval: as text, with n.
        doubts: why it is not to be believed; empty: nothing is known against it.
    """

    label: str
    value: str
    interval: str
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tiles:
    """Headline numbers side by side."""

    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Table:
    """Rows of text under named columns.

    Attributes:
        title: of the table, also for screen readers.
        columns: their names.
        rows: cells as text, as many as columns.
        folded: whether the page shows it only on demand.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    folded: bool = False


@dataclass(frozen=True)
class Code:
    """Text to be copied: a command, or a file."""

    title: str
    text: str
    folded: bool = False


@dataclass(frozen=True)
class Series:
    """Values along the horizontal axis.

    Attributes:
        name: in the legend.
        x: positions, rising, or names of categories.
        y: values; None where there is none.
        low: lower ends of a band around them.
        high: upper ends.
        shape: "steps" for histograms, whose last position closes the last bin.
    """

    name: str
    x: tuple[Place, ...]
    y: tuple[float | None, ...]
    low: tuple[float | None, ...] | None = None
    high: tuple[float | None, ...] | None = None
    shape: Literal["line", "steps"] = "line"


@dataclass(frozen=True)
class LineChart:
    """Series over one horizontal axis.

    Attributes:
        title: of the chart.
        across: what the horizontal axis is.
        up: what the vertical axis is.
        series: the lines.
        text: the same in words: a sentence or two for readers who do not see the chart.
        percent: whether values are shares, shown as percentages from 0 to 100%.
        log: axes on a logarithmic scale: "", "x", "y" or "xy".
        marks: positions with a vertical rule, and what each says.
    """

    title: str
    across: str
    up: str
    series: tuple[Series, ...]
    text: str
    percent: bool = False
    log: Literal["", "x", "y", "xy"] = ""
    marks: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True)
class Bar:
    """A value with its interval; None where it has none."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class BarSeries:
    """Bars of one colour."""

    name: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class BarChart:
    """Shares by category, with intervals; categories from top to bottom.

    Attributes:
        title: of the chart.
        up: what the categories are.
        across: what the values are, which are shares.
        series: groups of bars over the same categories.
        text: the same in words.
    """

    title: str
    up: str
    across: str
    series: tuple[BarSeries, ...]
    text: str


@dataclass(frozen=True)
class MatrixChart:
    """Counts in a table of colours.

    Attributes:
        title: of the chart.
        up: what the rows are.
        across: what the columns are.
        rows: their names.
        columns: their names.
        counts: a row of counts for each row; cells as many as columns.
        text: the same in words.
    """

    title: str
    up: str
    across: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    text: str


Chart = LineChart | BarChart | MatrixChart


@dataclass(frozen=True)
class Picture:
    """A PNG image and what it shows in words."""

    png: bytes
    text: str


@dataclass(frozen=True)
class Pictures:
    """Images in rows under named columns.

    Attributes:
        title: of the grid.
        columns: their names.
        rows: a name, and a picture for each column; None where there is none.
        about: how to read them.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Picture | None, ...]], ...]
    about: str = ""


@dataclass(frozen=True)
class Definitions:
    """Terms and what they mean."""

    terms: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Figures:
    """Charts in a grid.

    Attributes:
        title: of the group.
        charts: in order.
        folded: whether the page shows them only on demand.
    """

    title: str
    charts: tuple[Chart, ...]
    folded: bool = False


Block = Paragraph | Alert | Tiles | Table | Code | LineChart | BarChart | MatrixChart | Figures | Pictures | Definitions


@dataclass(frozen=True)
class Part:
    """Blocks under one heading, such as those of one run; without a heading they belong to the whole section."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Section:
    """Parts of one subject.

    Attributes:
        title: its heading.
        parts: in order.
        lead: what the section shows, in a sentence.
        side_by_side: whether parts stand in columns where the page is wide enough, to be compared.
    """

    title: str
    parts: tuple[Part, ...]
    lead: str = ""
    side_by_side: bool = True


@dataclass(frozen=True)
class Document:
    """A whole report.

    Attributes:
        title: its heading.
        facts: what all of it shares, a line each.
        sections: in order.
    """

    title: str
    facts: tuple[str, ...]
    sections: tuple[Section, ...]

    def charts(self) -> list[tuple[str, Chart]]:
        """Return every chart with the name of its part: "" where the part has none."""
        charts = list[tuple[str, Chart]]()
        for part in (part for section in self.sections for part in section.parts):
            for block in part.blocks:
                group = block.charts if isinstance(block, Figures) else [block] if isinstance(block, Chart) else []
                charts += [(part.title, chart) for chart in group]
        return charts


def section(title: str, parts: Sequence[Part], lead: str = "", side_by_side: bool = True) -> Section | None:
    """Return a section of the parts that hold something; None without any."""
    kept = tuple(part for part in parts if part.blocks)
    return Section(title, kept, lead, side_by_side) if kept else None


def data_table(chart: Chart) -> Table:
    """Return the data of a chart as a table."""
    if isinstance(chart, MatrixChart):
        rows = tuple((name, *map(str, counts)) for name, counts in zip(chart.rows, chart.counts, strict=True))
        return Table(chart.title, (f"{chart.up} \\ {chart.across}", *chart.columns), rows)
    if isinstance(chart, BarChart):
        named = len(chart.series) > 1
        rows = tuple(
            (*([series.name] if named else []), bar.name, f"{bar.value:.1%}", _ends(bar.low, bar.high, True))
            for series in chart.series
            for bar in series.bars
        )
        return Table(chart.title, (*(["series"] if named else []), chart.up, chart.across, "95% interval"), rows)
    return _line_table(chart)


def _line_table(chart: LineChart) -> Table:
    """Return a row for each position, with a column for each series and one for its interval where it has one."""
    positions = list(dict.fromkeys(place for series in chart.series for place in series.x))
    if all(isinstance(place, float | int) for place in positions):
        positions.sort(key=float)
    columns, cells = [chart.across], [[shown(place) for place in positions]]
    for series in chart.series:
        name = series.name or chart.up
        at = {place: row for row, place in enumerate(series.x)}
        columns.append(name)
        cells.append([_value(series.y, at.get(place), chart.percent) for place in positions])
        if series.low is not None and series.high is not None:
            low, high = series.low, series.high
            columns.append(f"{name}, interval")
            rows = [at.get(place) for place in positions]
            cells.append(["" if row is None else _ends(low[row], high[row], chart.percent) for row in rows])
    return Table(chart.title, tuple(columns), tuple(zip(*cells, strict=True)))


def shown(value: Place | None, percent: bool = False) -> str:
    """Return a value as tables show it; "" for None."""
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:.1%}" if percent else f"{value:.4g}"


def _value(values: Sequence[float | None], row: int | None, percent: bool) -> str:
    return "" if row is None or row >= len(values) else shown(values[row], percent)


def _ends(low: float | None, high: float | None, percent: bool) -> str:
    return "" if low is None or high is None else f"{shown(low, percent)} to {shown(high, percent)}"
