"""Findings of one network or several as blocks of a document."""

from collections.abc import Sequence

import numpy as np

from unperturbed.findings import Distribution, Examined, Finding, Number
from unperturbed.reports.document import Block, Figures, LineChart, Paragraph, Series, Table

BINS = 40
SHOWN = 2
"""Number of a finding's figures that the page shows unfolded."""


def finding_blocks(title: str, models: Sequence[Examined]) -> tuple[Block, ...]:
    """Return the findings of one title: a sentence for each network, figures with all networks, numbers and notes."""
    findings = [(model, finding) for model in models for finding in model.findings if finding.title == title]
    several = len(findings) > 1
    blocks: list[Block] = [
        Paragraph(f"{model.name}: {finding.summary}" if several else finding.summary) for model, finding in findings
    ]
    distributions = dict.fromkeys(one.name for _, finding in findings for one in finding.distributions if one.values)
    lines = dict.fromkeys(one.name for _, finding in findings for one in finding.lines)
    charts = [distribution_chart(name, models) for name in distributions]
    charts += [line_chart(name, models) for name in lines]
    blocks += [Figures(title, tuple(charts[:SHOWN]))] if charts else []
    blocks += [Figures(f"{title}: further figures", tuple(charts[SHOWN:]), folded=True)] if charts[SHOWN:] else []
    names = dict.fromkeys(number.name for _, finding in findings for number in finding.numbers)
    if names:
        rows = tuple((name, *(_cell(name, finding) for _, finding in findings)) for name in names)
        columns = ("number", *(model.name for model, _ in findings)) if several else ("number", "value")
        blocks.append(Table(f"{title}: numbers", columns, rows, folded=True))
    notes = [(model.name, note) for model, finding in findings for note in finding.notes]
    blocks += [Paragraph(text) for text in merged_notes(notes, len(findings))]
    return tuple(blocks)


def number_text(number: Number) -> str:
    """Return a number with its interval as text for tables."""
    ends = (
        ""
        if number.low is None or number.high is None
        else f" [{_text(number.low, number.unit)}, {_text(number.high, number.unit)}]"
    )
    unit = f" {number.unit}" if number.unit not in ("", "%") else ""
    return f"{_text(number.value, number.unit)}{ends}{unit}, n={number.n}"


def merged_notes(notes: Sequence[tuple[str, str]], networks: int) -> list[str]:
    """Return the distinct notes, with the names of their networks unless they apply to all."""
    about: dict[str, list[str]] = {}
    for name, note in notes:
        about.setdefault(note, []).append(name)
    return [note if len(names) == networks else f"{note} ({', '.join(names)})" for note, names in about.items()]


def distribution_chart(name: str, models: Sequence[Examined]) -> LineChart:
    """Return the distributions of this name as outlines of histograms over the same bins, one per network."""
    distributions = [(model, one) for model in models if (one := model.distribution(name)) is not None and one.values]
    values = np.concatenate([np.asarray(one.values, dtype=float) for _, one in distributions])
    log = distributions[0][1].log and bool((values > 0).all())
    edges = _edges(np.log10(values) if log else values)
    shown = 10**edges if log else edges
    series = tuple(
        Series(_label(model, models), tuple(shown.tolist()), _shares(one, edges, log), shape="steps")
        for model, one in distributions
    )
    unit = distributions[0][1].unit
    medians = ", ".join(f"{_label(model, models)} {np.median(one.values):.4g}" for model, one in distributions)
    text = f"Medians: {medians} (n = {', '.join(str(len(one.values)) for _, one in distributions)})."
    missing = sum(one.missing for _, one in distributions)
    text += f" {missing} examples without a finite value are left out." if missing else ""
    return LineChart(
        name, f"{name} ({unit})" if unit else name, "share of examples", series, text, log="x" if log else ""
    )


def line_chart(name: str, models: Sequence[Examined]) -> LineChart:
    """Return the lines of this name, one per network; with its range for a single network."""
    lines = [(model, line) for model in models if (line := model.line(name)) is not None]
    alone = len(lines) == 1
    series = tuple(
        Series(_label(model, models), line.x, line.y, line.low if alone else None, line.high if alone else None)
        for model, line in lines
    )
    first = lines[0][1]
    abouts = dict.fromkeys(line.about for _, line in lines if line.about)
    ends = "; ".join(
        f"{_label(model, models)}: from {values[0]:.4g} to {values[-1]:.4g}"
        for model, line in lines
        if (values := [value for value in line.y if value is not None])
    )
    text = f"First and last value: {ends}. {'. '.join(abouts)}".strip()
    positive = all(value is None or value > 0 for _, line in lines for value in line.y)
    return LineChart(name, first.across, first.unit or name, series, text, log="y" if first.log and positive else "")


def _text(value: float, unit: str) -> str:
    return f"{value:.1%}" if unit == "%" else f"{value:.4g}"


def _cell(name: str, finding: Finding) -> str:
    return next((number_text(number) for number in finding.numbers if number.name == name), "")


def _shares(one: Distribution, edges: np.ndarray, log: bool) -> tuple[float | None, ...]:
    values = np.asarray(one.values, dtype=float)
    inside = np.clip(np.log10(values) if log else values, edges[0], edges[-1])
    counts, _ = np.histogram(inside, bins=edges)
    return (*(counts / len(values)).tolist(), 0.0)


def _label(model: Examined, models: Sequence[Examined]) -> str:
    """Return the name of a network in the legend, with its strength if strengths differ."""
    return (
        model.name if len({network.strength for network in models}) == 1 else f"{model.name}, eps {model.strength:.6g}"
    )


def _edges(values: np.ndarray) -> np.ndarray:
    """Return edges of bins without the outermost thousandths, which count in the outer bins."""
    low, high = np.quantile(values, [0.001, 0.999])
    return np.linspace(low, high if high > low else low + 1, BINS + 1)
