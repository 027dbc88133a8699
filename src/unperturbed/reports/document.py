"""A report as plain data: sections of paragraphs, tables, charts and pictures, independent of the format."""

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
    """A warning before the numbers: a headline, and a line for each reason."""

    text: str
    points: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tile:
    """A headline number.

    Attributes:
        label: its name.
        value: as text, such as "48.7%".
        interval: as text, with n.
        doubts: reasons why it is not credible, or empty.
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
        rows: cells as text, one per column.
        folded: whether the page shows it only on demand.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    folded: bool = False


@dataclass(frozen=True)
class Code:
    """Text for copying: a command, or a file."""

    title: str
    text: str
    folded: bool = False


@dataclass(frozen=True)
class Series:
    """Values along the horizontal axis.

    Attributes:
        name: in the legend.
        x: positions, rising, or names of categories.
        y: values; None for a missing one.
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
        across: title of the horizontal axis.
        up: title of the vertical axis.
        series: the lines.
        text: the chart in words: one or two sentences for readers who do not see it.
        percent: whether values are shares, shown as percentages from 0 to 100%.
        log: axes on a logarithmic scale: "", "x", "y" or "xy".
        marks: positions of vertical rules, with their labels.
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
    """A value with its interval, or None."""

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
        up: title of the categories.
        across: title of the values, which are shares.
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
        up: title of the rows.
        across: title of the columns.
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
    """A PNG image and its description."""

    png: bytes
    text: str


@dataclass(frozen=True)
class Pictures:
    """Images in rows under named columns.

    Attributes:
        title: of the grid.
        columns: their names.
        rows: a name, and a picture or None for each column.
        about: an explanation.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Picture | None, ...]], ...]
    about: str = ""


@dataclass(frozen=True)
class Definitions:
    """Terms and their meanings."""

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
    """Blocks under one heading, such as a run; without a heading the blocks belong to the whole section."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Section:
    """Parts of one subject.

    Attributes:
        title: its heading.
        parts: in order.
        lead: a sentence on the content of the section.
        side_by_side: whether parts form columns on wide pages, for comparison.
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
        facts: common facts, one line each.
        sections: in order.
    """

    title: str
    facts: tuple[str, ...]
    sections: tuple[Section, ...]

    def charts(self) -> list[tuple[str, Chart]]:
        """Return every chart with the name of its part, or ""."""
        charts = list[tuple[str, Chart]]()
        for part in (part for section in self.sections for part in section.parts):
            for block in part.blocks:
                group = block.charts if isinstance(block, Figures) else [block] if isinstance(block, Chart) else []
                charts += [(part.title, chart) for chart in group]
        return charts


def section(title: str, parts: Sequence[Part], lead: str = "", side_by_side: bool = True) -> Section | None:
    """Return a section of the non-empty parts; None without any."""
    non_empty = tuple(part for part in parts if part.blocks)
    return Section(title, non_empty, lead, side_by_side) if non_empty else None


def data_table(chart: Chart) -> Table:
    """Return the data of a chart as a table."""
    if isinstance(chart, MatrixChart):
        rows = tuple((name, *map(str, counts)) for name, counts in zip(chart.rows, chart.counts, strict=True))
        return Table(chart.title, (f"{chart.up} \\ {chart.across}", *chart.columns), rows)
    if isinstance(chart, BarChart):
        several = len(chart.series) > 1
        rows = tuple(
            (*([series.name] if several else []), bar.name, f"{bar.value:.1%}", _ends(bar.low, bar.high, True))
            for series in chart.series
            for bar in series.bars
        )
        return Table(chart.title, (*(["series"] if several else []), chart.up, chart.across, "95% interval"), rows)
    return _line_table(chart)


def _line_table(chart: LineChart) -> Table:
    """Return one row per position, with a column for each series and its interval, if any."""
    positions = list(dict.fromkeys(position for series in chart.series for position in series.x))
    if all(isinstance(position, float | int) for position in positions):
        positions.sort(key=float)
    columns, cells = [chart.across], [[shown(position) for position in positions]]
    for series in chart.series:
        name = series.name or chart.up
        at = {position: row for row, position in enumerate(series.x)}
        columns.append(name)
        cells.append([_value(series.y, at.get(position), chart.percent) for position in positions])
        if series.low is not None and series.high is not None:
            low, high = series.low, series.high
            columns.append(f"{name}, interval")
            rows = [at.get(position) for position in positions]
            cells.append(["" if row is None else _ends(low[row], high[row], chart.percent) for row in rows])
    return Table(chart.title, tuple(columns), tuple(zip(*cells, strict=True)))


def shown(value: Place | None, percent: bool = False) -> str:
    """Return a value as text for tables; "" for None."""
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:.1%}" if percent else f"{value:.4g}"


def _value(values: Sequence[float | None], row: int | None, percent: bool) -> str:
    return "" if row is None or row >= len(values) else shown(values[row], percent)


def _ends(low: float | None, high: float | None, percent: bool) -> str:
    return "" if low is None or high is None else f"{shown(low, percent)} to {shown(high, percent)}"
