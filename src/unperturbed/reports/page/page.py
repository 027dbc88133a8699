"""One self-contained page: findings of one network or several, with figures and decisions on the claims."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from jinja2 import Environment, StrictUndefined
from plotly.graph_objects import Figure
from plotly.offline import get_plotlyjs

from unperturbed.findings import Comparison, Examined, Finding, Number
from unperturbed.reports.page.figures import distribution_figure, line_figure, trend_figures


@dataclass(frozen=True)
class _Section:
    """The findings of one diagnostic for all networks."""

    title: str
    summaries: Sequence[tuple[str, str]]
    notes: Sequence[tuple[str, str]]
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str]]]
    figures: Sequence[str]


def findings_page(models: Sequence[Examined], comparison: Comparison | None, title: str, facts: Sequence[str]) -> str:
    """Return a self-contained page of HTML; `facts` are common to all networks."""
    titles = dict.fromkeys(finding.title for model in models for finding in model.findings)
    sections = [_section(name, models) for name in titles]
    template = resources.files(__package__).joinpath("template.html").read_text(encoding="utf-8")
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return page.from_string(template).render(
        title=title,
        facts=facts,
        models=models,
        comparison=comparison,
        trends=[] if comparison is None else [_html(figure) for figure in trend_figures(comparison)],
        sections=sections,
        script=get_plotlyjs(),
    )


def number_text(number: Number) -> str:
    """Return a number with its interval as text for tables."""
    ends = (
        ""
        if number.low is None or number.high is None
        else f" [{_text(number.low, number.unit)}, {_text(number.high, number.unit)}]"
    )
    unit = f" {number.unit}" if number.unit not in ("", "%") else ""
    return f"{_text(number.value, number.unit)}{ends}{unit}, n={number.n}"


def _text(value: float, unit: str) -> str:
    return f"{value:.1%}" if unit == "%" else f"{value:.4g}"


def _section(title: str, models: Sequence[Examined]) -> _Section:
    pairs = [(model, finding) for model in models for finding in model.findings if finding.title == title]
    names = dict.fromkeys(number.name for _, finding in pairs for number in finding.numbers)
    rows = [(name, [_cell(name, finding) for _, finding in pairs]) for name in names]
    networks = [Examined(model.name, model.strength, model.seed, (finding,)) for model, finding in pairs]
    distributions = dict.fromkeys(one.name for _, finding in pairs for one in finding.distributions if one.values)
    lines = dict.fromkeys(one.name for _, finding in pairs for one in finding.lines)
    figures = [distribution_figure(name, networks) for name in distributions] + [
        line_figure(name, networks) for name in lines
    ]
    return _Section(
        title,
        [(model.name, finding.summary) for model, finding in pairs],
        _notes([(model.name, note) for model, finding in pairs for note in finding.notes], len(pairs)),
        [model.name for model, _ in pairs],
        rows,
        [_html(figure) for figure in figures],
    )


def _cell(name: str, finding: Finding) -> str:
    return next((number_text(number) for number in finding.numbers if number.name == name), "")


def _notes(notes: Sequence[tuple[str, str]], networks: int) -> list[tuple[str, str]]:
    """Return the distinct notes, with the names of their networks unless they apply to all."""
    about: dict[str, list[str]] = {}
    for name, note in notes:
        about.setdefault(note, []).append(name)
    return [("" if len(names) == networks else ", ".join(names), note) for note, names in about.items()]


def _html(figure: Figure) -> str:
    settings = {"responsive": True, "displayModeBar": False}
    return str(figure.to_html(full_html=False, include_plotlyjs=False, default_width="100%", config=settings))
