"""Figures of findings, for one network or several, as Plotly data for a page.

Plotly interprets a part of HTML in texts, so every name is escaped here.
"""

import html
import math
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from unperturbed.findings import Comparison, Distribution, Examined, Row, Trend

BINS = 40
INK, FAINT = "#78818c", "rgba(139, 148, 158, .35)"
"""Legible on white and on black, since a page follows its reader's settings."""
SCALE = ((63, 111, 181), (46, 155, 130), (196, 158, 48), (214, 84, 62))
"""Colours from the weakest strength to the strongest; others lie between them."""


DASHES = ("solid", "dash", "dot", "dashdot")
"""The dashes of lines, in cyclic order."""


def colours(models: Sequence[Examined]) -> list[str]:
    """Return a colour for each network, by its strength, or different colours for equal strengths."""
    strengths = sorted({model.strength for model in models})
    if len(strengths) > 1:
        return [_between(strengths.index(model.strength) / (len(strengths) - 1)) for model in models]
    return [_between(k / max(1, len(models) - 1)) for k in range(len(models))]


def distribution_figure(name: str, models: Sequence[Examined]) -> go.Figure:
    """Return the distributions of this name as outlines of histograms over the same bins, one per network."""
    ordered = sorted(models, key=lambda model: model.strength)
    values_of = {k: _values(name, model) for k, model in enumerate(ordered)}
    pooled = np.concatenate(list(values_of.values()))
    log = _first_distribution(name, models).log and bool((pooled > 0).all())
    edges = _edges(np.log10(pooled) if log else pooled)
    figure = go.Figure()
    for k, (model, colour, dash) in enumerate(zip(ordered, colours(ordered), _dashes(ordered), strict=True)):
        if not len(values := values_of[k]):
            continue
        inside = np.clip(np.log10(values) if log else values, edges[0], edges[-1])
        counts, _ = np.histogram(inside, bins=edges)
        shown = edges if not log else 10**edges
        figure.add_scatter(
            x=shown, y=[*(counts / len(values)), 0.0], name=_label(model, models), mode="lines",
            line={"shape": "hv", "color": colour, "dash": dash},
        )  # fmt: skip
    unit = _first_distribution(name, models).unit
    _lay_out(figure, name, f"{name}{f' ({unit})' if unit else ''}", "share of examples")
    if log:
        figure.update_xaxes(type="log")
    return figure


def line_figure(name: str, models: Sequence[Examined]) -> go.Figure:
    """Return the lines of this name, one per network; with its range for a single network."""
    figure = go.Figure()
    for model, colour, dash in zip(models, colours(models), _dashes(models), strict=True):
        line = model.line(name)
        if line is None:
            continue
        if len(models) == 1 and line.low is not None and line.high is not None:
            band = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
            figure.add_scatter(x=_positions(line.x), y=line.low, **band)
            figure.add_scatter(x=_positions(line.x), y=line.high, fill="tonexty", fillcolor=_faded(colour), **band)
        figure.add_scatter(
            x=_positions(line.x), y=line.y, name=_label(model, models), mode="lines+markers",
            line={"color": colour, "width": 1.6, "dash": dash}, marker={"size": 4},
            text=[_text(model.name)] * len(line.x),
        )  # fmt: skip
    lines = [line for model in models if (line := model.line(name)) is not None]
    drawn, abouts = lines[0], {line.about for line in lines}
    _lay_out(figure, name, drawn.across, drawn.unit or name, drawn.about if len(abouts) == 1 else "")
    if drawn.log:
        figure.update_yaxes(type="log")
    return figure


def row_figure(row: Row, strengths: Sequence[float], trend: Trend | None = None) -> go.Figure:
    """Return one quantity against the strength, with intervals over networks; the title has the decision."""
    figure = go.Figure()
    indices = [k for k, mean in enumerate(row.means) if mean is not None]
    bars = None
    if any(row.low[k] is not None for k in indices):
        bars = {
            "type": "data", "symmetric": False, "color": FAINT,
            "array": [_difference(row.high[k], row.means[k]) for k in indices],
            "arrayminus": [_difference(row.means[k], row.low[k]) for k in indices],
        }  # fmt: skip
    figure.add_scatter(
        x=[strengths[k] for k in indices], y=[row.means[k] for k in indices], error_y=bars, mode="lines+markers",
        line={"color": _between(0.0)}, showlegend=False,
    )  # fmt: skip
    if trend is None:
        _lay_out(figure, row.quantity, "eps in training", row.unit)
    else:
        _lay_out(figure, trend.claim.sentence, "eps in training", row.quantity, verdict=trend.verdict)
    return figure


def trend_figures(comparison: Comparison) -> list[go.Figure]:
    """Return a figure for each claim on a distribution."""
    rows = {row.quantity: row for row in comparison.rows}
    return [
        row_figure(rows[f"mean {trend.claim.quantity}"], comparison.strengths, trend)
        for trend in comparison.claims
        if f"mean {trend.claim.quantity}" in rows
    ]


def _first_distribution(name: str, models: Sequence[Examined]) -> Distribution:
    return next(distribution for model in models if (distribution := model.distribution(name)) is not None)


def _values(name: str, model: Examined) -> np.ndarray:
    distribution = model.distribution(name)
    return np.asarray(() if distribution is None else distribution.values, dtype=float)


def _dashes(models: Sequence[Examined]) -> list[str]:
    """Return a dash for each network, so that those of one strength, which share a colour, differ."""
    strengths = [model.strength for model in models]
    if len(set(strengths)) == 1:
        return [DASHES[0]] * len(models)
    return [DASHES[strengths[:k].count(strength) % len(DASHES)] for k, strength in enumerate(strengths)]


def _label(model: Examined, models: Sequence[Examined]) -> str:
    """Return the name of a network in the legend, with its strength if strengths differ."""
    name = _text(model.name)
    return name if len({examined.strength for examined in models}) == 1 else f"{name}, eps {model.strength:.6g}"


def _edges(values: np.ndarray) -> np.ndarray:
    """Return edges of bins without the outermost thousandths, which count in the outer bins."""
    low, high = np.quantile(values, [0.001, 0.999])
    return np.linspace(low, high if high > low else low + 1, BINS + 1)


def _lay_out(figure: go.Figure, title: str, across: str, up: str, about: str = "", verdict: str = "") -> None:
    behind = f": <b>{_text(verdict)}</b>" if verdict else ""
    below = f"<br><sup>{_text(about)}</sup>" if about else ""
    axis = {
        "gridcolor": FAINT,
        "zerolinecolor": FAINT,
        "linecolor": FAINT,
        "automargin": True,
        "exponentformat": "power",
    }
    figure.update_layout(
        title={"text": _text(title) + behind + below, "font": {"size": 14}}, font={"color": INK, "size": 12},
        height=340,
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", margin={"l": 60, "r": 16, "t": 56, "b": 48},
        xaxis={**axis, "title": {"text": _text(across)}}, yaxis={**axis, "title": {"text": _text(up)}},
        hovermode="closest",
    )  # fmt: skip


def _text(text: str) -> str:
    return html.escape(text, quote=False)


def _positions(positions: Sequence[str] | Sequence[float]) -> list[str | float]:
    return [_text(position) if isinstance(position, str) else position for position in positions]


def _between(share: float) -> str:
    position = share * (len(SCALE) - 1)
    first = min(int(position), len(SCALE) - 2)
    red, green, blue = (round(a + (position - first) * (b - a)) for a, b in zip(*SCALE[first : first + 2], strict=True))
    return f"rgb({red}, {green}, {blue})"


def _faded(colour: str) -> str:
    return colour.replace("rgb(", "rgba(").replace(")", ", .18)")


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None or not math.isfinite(a - b) else a - b
