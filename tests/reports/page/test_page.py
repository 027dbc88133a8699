"""The page of findings: whole, self-contained, and true to the numbers."""

import re

import numpy as np
import pytest
from plotly.offline import get_plotlyjs

from unperturbed.findings import Claim, Comparison, Distribution, Examined, Finding, Line, Number, Row, Trend
from unperturbed.reports.page.figures import distribution_figure, line_figure, row_figure
from unperturbed.reports.page.page import findings_page, number_text


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


def test_the_page_needs_nothing_from_elsewhere() -> None:
    page = findings_page([examined("a", 0.0)], None, "Diagnosis of a", ["Data: x"])
    own = page.replace(get_plotlyjs(), "")
    assert len(own) < 100_000 < len(page)
    assert not re.findall(r"(?:src|href)=|https?://", own)
    assert "Plotly.newPlot" in page and page.rstrip().endswith("</html>")


def test_the_page_tells_numbers_notes_and_sentences_escaped() -> None:
    page = findings_page([examined("a", 0.0), examined("b<i>", 0.1)], comparison(), "T", [])
    assert "Margins &lt;of&gt; the output" in page and "b&lt;i&gt;" in page
    assert "25.0% [15.0%, 38.0%], n=50" in page and "1.5 logits, n=50" in page
    assert page.count("A note &amp; more.") == 1 and "(a, b&lt;i&gt;)" not in page
    assert '<td class="held">held</td>' in page and "-1 [-1.5, -0.5]" in page and "One network only." in page


def test_no_name_is_markup_in_a_figure_and_the_page_makes_no_requests() -> None:
    """Plotly makes links of <a href> in any text."""
    name = '<a href="https://a.b">x</a>'
    line = Line(name, (name, "fc"), (0.5, None), across=name, unit=name, about=name)
    found = Finding(name, name, distributions=(Distribution(name, (0.1, 0.2), (0, 1), name),), lines=(line,))
    page = findings_page([Examined(name, 0.0, 0, (found,)), Examined("b", 0.0, 0, (found,))], None, name, [name])
    page = page.replace(get_plotlyjs(), "")
    assert "<a " not in page and "\\u003ca " not in page
    assert "default-src 'none'" in page


def test_a_note_names_its_networks_unless_it_is_about_all() -> None:
    other = Examined("c", 0.1, 0, (Finding("Margins <of> the output", "c.", notes=("Something else.",)),))
    page = findings_page([examined("a", 0.0), examined("b", 0.0), other], None, "T", [])
    assert "A note &amp; more. (a, b)" in page and "Something else. (c)" in page


def test_numbers_carry_interval_unit_and_n() -> None:
    assert number_text(Number("x", 0.12345, 7, unit="%")) == "12.3%, n=7"
    assert number_text(Number("x", 12.345, 7, 10.0, 15.0, "logits")) == "12.35 [10, 15] logits, n=7"


def test_histograms_share_their_bins_and_hold_every_example() -> None:
    figure = distribution_figure("output margin", [examined("a", 0.0), examined("b", 0.1, shift=0.5)])
    first, second = figure.data
    assert list(first.x) == list(second.x) and [first.name, second.name] == ["a, eps 0", "b, eps 0.1"]
    assert sum(first.y) == pytest.approx(1) and sum(second.y) == pytest.approx(1)


def test_networks_of_one_strength_are_told_apart_by_name_and_dash() -> None:
    models = [examined("a", 0.0), examined("b", 0.0), examined("c", 0.2)]
    names = ["a, eps 0", "b, eps 0", "c, eps 0.2"]
    for figure in (distribution_figure("output margin", models), line_figure("spread", models)):
        assert [trace.name for trace in figure.data] == names
        first, second, third = [(trace.line.color, trace.line.dash) for trace in figure.data]
        assert first[0] == second[0] != third[0] and first[1] != second[1]


def test_a_single_network_shows_the_range_around_its_line() -> None:
    assert len(line_figure("spread", [examined("a", 0.0)]).data) == 3
    assert len(line_figure("spread", [examined("a", 0.0), examined("b", 0.1)]).data) == 2


def test_a_constant_distribution_is_drawn() -> None:
    found = Finding("t", "s", (), (Distribution("d", (1.0,) * 5, tuple(range(5)), log=True),))
    (trace,) = distribution_figure("d", [Examined("a", 0.0, 0, (found,))]).data
    assert sum(trace.y) == pytest.approx(1)


def test_a_row_shows_its_intervals_and_the_decision() -> None:
    figure = row_figure(comparison().rows[0], (0.0, 0.1), comparison().claims[0])
    (trace,) = figure.data
    assert list(trace.x) == [0.0, 0.1] and list(trace.y) == [1.0, 0.5]
    assert trace.error_y.array[0] == pytest.approx(0.2) and "<b>held</b>" in figure.layout.title.text
