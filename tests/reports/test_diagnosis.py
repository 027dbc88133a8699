"""The page of a diagnosis: whole, self-contained, and true to the numbers."""

import json
import re

import numpy as np
import pytest
from plotly.offline import get_plotlyjs

from unperturbed.findings import Claim, Comparison, Distribution, Examined, Finding, Line, Number, Row, Trend
from unperturbed.reports.diagnosis import comparison_blocks, diagnosis_document
from unperturbed.reports.document import Document, Figures, LineChart, Paragraph, Table
from unperturbed.reports.findings import distribution_chart, line_chart, number_text
from unperturbed.reports.page.plots import plot
from unperturbed.reports.page.render import page_of


def examined(name: str, strength: float, shift: float = 0.0) -> Examined:
    values = tuple(float(v) + shift for v in np.linspace(0, 1, 50))
    found = Finding(
        "Margins <of> the output",
        f"{name} has margins.",
        (Number("share near the boundary", 0.25, 50, 0.15, 0.38, "%"), Number("mean", 1.5, 50, unit="logits")),
        (Distribution("output margin", values, tuple(range(50)), "logits"),),
        (Line("spread", ("conv", "fc"), (0.5, None), (0.4, None), (0.6, None), about="quartiles, n = 50"),),
        ("A note & more.",),
    )
    return Examined(name, strength, 0, (found,))


def comparison() -> Comparison:
    claim = Claim("Samples gather at the decision boundary", "output margin", -1)
    trend = Trend(claim, -1.0, -1.5, -0.5, 0.01, "held", 50, (1.0, 0.5))
    row = Row("mean output margin", "logits", (1.0, 0.5), (0.8, None), (1.2, None))
    return Comparison((0.0, 0.1), (2, 1), (row,), (trend,), (), ("One network only.",))


def paragraphs(document: Document) -> list[str]:
    blocks = [block for section in document.sections for part in section.parts for block in part.blocks]
    return [block.text for block in blocks if isinstance(block, Paragraph)]


def test_the_page_needs_nothing_from_elsewhere_and_no_name_is_markup() -> None:
    """Plotly makes links of <a href> in any text."""
    name = '<a href="https://a.b">x</a>'
    line = Line(name, (name, "fc"), (0.5, None), across=name, unit=name, about=name)
    found = Finding(name, name, distributions=(Distribution(name, (0.1, 0.2), (0, 1), name),), lines=(line,))
    models = [Examined(name, 0.0, 0, (found,)), Examined("b", 0.1, 0, (found,))]
    page = page_of(diagnosis_document(models, comparison(), name, [name]))
    own = page.replace(get_plotlyjs(), "")
    assert len(own) < 100_000 < len(page) and page.rstrip().endswith("</html>")
    assert not re.findall(r'(?:src|href)="(?!data:|#)', own) and "default-src 'none'" in own
    figures = json.loads(re.findall(r'<script type="application/json" id="figures">(.*?)</script>', own)[0])
    assert "<a " not in json.dumps(figures) and own.count("<a ") == own.count('<a class="skip"') + own.count("<li><a ")


def test_every_title_is_a_section_with_numbers_notes_and_sentences() -> None:
    document = diagnosis_document([examined("a", 0.0), examined("b", 0.1)], comparison(), "T", ["Data: x"])
    assert [section.title for section in document.sections] == [
        "What robustness did to these networks", "Margins <of> the output",
    ]  # fmt: skip
    page = page_of(document)
    assert "25.0% [15.0%, 38.0%], n=50" in page and "1.5 logits, n=50" in page and "Data: x" in page
    assert paragraphs(document).count("A note & more.") == 1 and "One network only." in paragraphs(document)


def test_a_claim_has_its_decision_interval_and_chart() -> None:
    blocks = comparison_blocks(comparison())
    claims = next(block for block in blocks if isinstance(block, Table))
    sentence = "Samples gather at the decision boundary"
    assert claims.rows == ((sentence, "held", "output margin", "1 → 0.5", "-1 [-1.5, -0.5]", "0.01", "50"),)
    quantities = next(block for block in blocks if isinstance(block, Table) and "Every quantity" in block.title)
    assert quantities.columns == ("quantity", "eps 0 (2)", "eps 0.1 (1)")
    assert quantities.rows == (("mean output margin (logits)", "1 [0.8, 1.2]", "0.5"),)
    (chart,) = next(block for block in blocks if isinstance(block, Figures)).charts
    assert isinstance(chart, LineChart) and chart.title == f"{sentence}: held"
    assert (chart.series[0].x, chart.series[0].y, chart.series[0].low) == ((0.0, 0.1), (1.0, 0.5), (0.8, None))


def test_a_note_names_its_networks_unless_it_is_about_all() -> None:
    other = Examined("c", 0.1, 0, (Finding("Margins <of> the output", "c.", notes=("Something else.",)),))
    texts = paragraphs(diagnosis_document([examined("a", 0.0), examined("b", 0.0), other], None, "T", []))
    assert "A note & more. (a, b)" in texts and "Something else. (c)" in texts


def test_numbers_carry_interval_unit_and_n() -> None:
    assert number_text(Number("x", 0.12345, 7, unit="%")) == "12.3%, n=7"
    assert number_text(Number("x", 12.345, 7, 10.0, 15.0, "logits")) == "12.35 [10, 15] logits, n=7"


def test_histograms_share_their_bins_and_hold_every_example() -> None:
    chart = distribution_chart("output margin", [examined("a", 0.0), examined("b", 0.1, shift=0.5)])
    first, second = chart.series
    assert first.x == second.x and [first.name, second.name] == ["a, eps 0", "b, eps 0.1"]
    for series in chart.series:
        assert sum(share for share in series.y if share is not None) == pytest.approx(1)


def test_networks_are_told_apart_by_colour_dash_and_marker() -> None:
    models = [examined("a", 0.0), examined("b", 0.0), examined("c", 0.2)]
    for chart in (distribution_chart("output margin", models), line_chart("spread", models)):
        traces = plot(chart)["data"]
        assert [trace["name"] for trace in traces] == ["a, eps 0", "b, eps 0", "c, eps 0.2"]
        assert len({(trace["line"]["color"]) for trace in traces}) == 3
        assert len({(trace["line"]["dash"], trace["marker"]["symbol"]) for trace in traces}) == 3


def test_a_single_network_shows_the_range_around_its_line() -> None:
    assert line_chart("spread", [examined("a", 0.0)]).series[0].low == (0.4, None)
    assert line_chart("spread", [examined("a", 0.0), examined("b", 0.1)]).series[0].low is None


def test_a_constant_distribution_is_drawn() -> None:
    found = Finding("t", "s", (), (Distribution("d", (1.0,) * 5, tuple(range(5)), log=True),))
    (series,) = distribution_chart("d", [Examined("a", 0.0, 0, (found,))]).series
    assert sum(share for share in series.y if share is not None) == pytest.approx(1)
