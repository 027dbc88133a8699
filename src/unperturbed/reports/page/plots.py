"""Charts of a document as figures of Plotly, in plain values.

Plotly interprets a part of HTML in texts, so every name is escaped here. The page sets the colours of text and grid by
the reader's light or dark setting.
"""

import html
import math
from collections.abc import Sequence
from typing import Any

from unperturbed.reports.charts.style import COLOURS
from unperturbed.reports.document import BarChart, BarSeries, Chart, LineChart, MatrixChart, Series

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x")
"""Lines and points differ in more than their colour, for readers who see none."""
HATCHES = ("", "/", "x", ".")
FEW = 32
"""Lines of at most this many points have markers."""
LONGEST = 40
"""The largest length of a name in a figure; the table has the full name."""


def plot(chart: Chart) -> dict[str, Any]:
    """Return the data and layout of a figure."""
    if isinstance(chart, LineChart):
        return _lines(chart)
    return _bars(chart) if isinstance(chart, BarChart) else _matrix(chart)


def _lines(chart: LineChart) -> dict[str, Any]:
    data = [trace for number, series in enumerate(chart.series) for trace in _traces(series, number, chart)]
    layout = _layout(chart.across, chart.up, len([series for series in chart.series if series.name]))
    layout["yaxis"] |= {"tickformat": ".0%", "range": [0, 1.02]} if chart.percent else {}
    for letter in chart.log:
        layout[f"{letter}axis"]["type"] = "log"
    if chart.marks:
        layout["shapes"] = [
            {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper", "line": {"width": 1, "dash": "dot"}}
            for x, _ in chart.marks
        ]
        layout["annotations"] = [
            {"x": x, "y": 1, "yref": "paper", "text": _text(text), "showarrow": False, "yanchor": "top"}
            for x, text in chart.marks
        ]
    return {"data": data, "layout": layout}


def _traces(series: Series, number: int, chart: LineChart) -> list[dict[str, Any]]:
    colour, x = COLOURS[number % len(COLOURS)], [_place(place) for place in series.x]
    shape = "hv" if series.shape == "steps" else "linear"
    traces = list[dict[str, Any]]()
    if series.low is not None and series.high is not None:
        edge = {"x": x, "mode": "lines", "line": {"width": 0, "shape": shape}, "hoverinfo": "skip", "showlegend": False}
        traces.append({**edge, "y": _finite(series.low)})
        traces.append({**edge, "y": _finite(series.high), "fill": "tonexty", "fillcolor": _faded(colour)})
    dash = DASHES[number % len(DASHES)]
    marked = series.shape == "line" and len(x) <= FEW
    value = "%{y:.1%}" if chart.percent else "%{y:.4~g}"
    traces.append(
        {
            "x": x,
            "y": _finite(series.y),
            "name": _text(series.name) or " ",
            "mode": "lines+markers" if marked else "lines",
            "line": {"color": colour, "width": 2, "dash": dash, "shape": shape},
            "marker": {"size": 6, "symbol": SYMBOLS[number % len(SYMBOLS)]},
            "showlegend": bool(series.name) and len(chart.series) > 1,
            "hovertemplate": f"%{{x:.4~g}}: {value}" if isinstance(x[0], float | int) else f"%{{x}}: {value}",
        }
    )
    return traces


def _bars(chart: BarChart) -> dict[str, Any]:
    data = [_bar_trace(series, number, len(chart.series)) for number, series in enumerate(chart.series)]
    rows = len({bar.name for series in chart.series for bar in series.bars})
    values = [end for series in chart.series for bar in series.bars for end in (bar.value, bar.low, bar.high)]
    layout = _layout(chart.across, "", len(chart.series))
    layout["height"] = min(760, layout["margin"]["t"] + 60 + rows * (16 + 14 * len(chart.series)))
    signed = any(value is not None and value < 0 for value in values)
    layout["xaxis"] |= {"tickformat": "+.0%", "zeroline": True} if signed else {"tickformat": ".0%", "range": [0, 1.02]}
    layout["yaxis"] |= {"autorange": "reversed", "type": "category", "showgrid": False}
    return {"data": data, "layout": layout | {"barmode": "group", "bargap": 0.3}}


def _bar_trace(series: BarSeries, number: int, several: int) -> dict[str, Any]:
    pattern = {"shape": HATCHES[number % len(HATCHES)], "fillmode": "overlay", "solidity": 0.25, "fgcolor": "white"}
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": _finite([bar.value for bar in series.bars]),
        "y": [_text(bar.name) for bar in series.bars],
        "name": _text(series.name) or " ",
        "marker": {"color": COLOURS[number % len(COLOURS)], "pattern": pattern, "line": {"width": 0}},
        "showlegend": several > 1,
        "hovertemplate": "%{y}: %{x:.1%}",
    }
    if all(bar.low is None or bar.high is None for bar in series.bars):
        return trace
    ends = {
        "array": _finite([0 if bar.high is None else bar.high - bar.value for bar in series.bars]),
        "arrayminus": _finite([0 if bar.low is None else bar.value - bar.low for bar in series.bars]),
    }
    return trace | {"error_x": {"type": "data", "symmetric": False, "thickness": 1.4, "width": 3, **ends}}


def _matrix(chart: MatrixChart) -> dict[str, Any]:
    totals = [max(sum(counts), 1) for counts in chart.counts]
    shares = [[count / total for count in counts] for counts, total in zip(chart.counts, totals, strict=True)]
    texts = [[str(count) if count else "" for count in counts] for counts in chart.counts]
    trace = {
        "type": "heatmap",
        "x": [_text(name) for name in chart.columns],
        "y": [_text(name) for name in chart.rows],
        "z": shares,
        "text": texts,
        "texttemplate": "%{text}" if len(chart.rows) <= 20 else "",
        "customdata": [list(counts) for counts in chart.counts],
        "colorscale": "Cividis",
        "zmin": 0,
        "zmax": 1,
        "xgap": 1,
        "ygap": 1,
        "colorbar": {"tickformat": ".0%", "thickness": 12, "outlinewidth": 0},
        "hovertemplate": f"{_text(chart.up)} %{{y}}, {_text(chart.across)} %{{x}}: %{{customdata}} "
        "(%{z:.1%} of the row)<extra></extra>",
    }
    layout = _layout(chart.across, chart.up, 0)
    layout["height"] = max(340, min(640, 120 + 26 * len(chart.rows)))
    layout["xaxis"] |= {"type": "category", "showgrid": False}
    layout["yaxis"] |= {"type": "category", "autorange": "reversed", "showgrid": False}
    return {"data": [trace], "layout": layout}


def _layout(across: str, up: str, legend_entries: int) -> dict[str, Any]:
    axis = {"automargin": True, "exponentformat": "power", "fixedrange": False}
    legend = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"} if legend_entries > 1 else {}
    return {
        "height": 330 + (28 if legend_entries > 1 else 0),
        "margin": {"l": 56, "r": 12, "t": 50 if legend_entries > 1 else 22, "b": 48},
        "xaxis": {**axis, "title": {"text": _text(across), "standoff": 8}},
        "yaxis": {**axis, "title": {"text": _text(up), "standoff": 8}},
        "legend": legend,
        "hovermode": "closest",
    }


def _text(text: str) -> str:
    short = text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
    return html.escape(short, quote=False).replace("%{", "%&#123;")


def _place(place: str | float) -> str | float:
    return _text(place) if isinstance(place, str) else place


def _finite(values: Sequence[float | None]) -> list[float | None]:
    return [None if value is None or not math.isfinite(value) else value for value in values]


def _faded(colour: str) -> str:
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, .16)"
