"""Documents: the data of every chart as a table, and the same content as Markdown and as figures of Plotly."""

import json
import math

import pytest

from unperturbed.reports.card import card_of
from unperturbed.reports.document import (
    Bar,
    BarChart,
    BarSeries,
    Chart,
    Code,
    Document,
    Figures,
    LineChart,
    MatrixChart,
    Paragraph,
    Part,
    Section,
    Series,
    data_table,
    section,
)
from unperturbed.reports.page.plots import plot
from unperturbed.reports.page.render import page_of

NAME = "<b>%{x}</b>"
FIRST = Series(NAME, (0.0, 0.5), (1.0, None), (0.9, None), (1.0, None))
SECOND = Series("b", (0.25,), (0.5,))
LINES = LineChart("t", "eps", "accuracy", (FIRST, SECOND), "words", percent=True, marks=((0.5, NAME),))
BARS = BarChart("t", "class", "share", (BarSeries("", (Bar(NAME, 0.5, 0.25, 0.75), Bar("b", -0.5))),), "words")
MATRIX = MatrixChart("t", "true", "taken for", (NAME, "b"), ("a", "b"), ((3, 1), (0, 0)), "words")
CHARTS = (LINES, BARS, MATRIX)


def test_the_table_of_lines_has_every_position_in_order() -> None:
    table = data_table(LINES)
    assert table.columns == ("eps", NAME, f"{NAME}, interval", "b")
    assert table.rows == (
        ("0", "100.0%", "90.0% to 100.0%", ""),
        ("0.25", "", "", "50.0%"),
        ("0.5", "", "", ""),
    )


def test_the_tables_of_bars_and_matrices_have_every_number() -> None:
    assert data_table(BARS).rows == ((NAME, "50.0%", "25.0% to 75.0%"), ("b", "-50.0%", ""))
    assert data_table(MATRIX).rows == ((NAME, "3", "1"), ("b", "0", "0"))


@pytest.mark.parametrize("chart", CHARTS)
def test_names_are_escaped_in_figures(chart: Chart) -> None:
    text = json.dumps(plot(chart))
    assert "<b>" not in text and "&lt;b&gt;" in text


def test_values_that_are_not_finite_are_gaps() -> None:
    chart = LineChart("t", "x", "y", (Series("a", (0.0, 1.0), (math.nan, math.inf)),), "words")
    assert plot(chart)["data"][0]["y"] == [None, None]


def test_an_interval_in_a_figure_reaches_from_its_low_to_its_high_end() -> None:
    error = plot(BARS)["data"][0]["error_x"]
    assert (error["array"], error["arrayminus"]) == ([0.25, 0], [0.25, 0])
    low, high, line = plot(LINES)["data"][:3]
    assert (low["y"], high["y"], line["y"]) == ([0.9, None], [1.0, None], [1.0, None])


def test_charts_are_numbered_as_the_page_shows_them() -> None:
    parts = (Part("a", (LINES, Figures("g", (BARS, MATRIX)))), Part("", (Paragraph("p"),)))
    document = Document("t", (), (Section("s", parts),))
    assert document.charts() == [("a", LINES), ("a", BARS), ("a", MATRIX)]
    page = page_of(document)
    assert [page.count(f'id="figure-{number}"') for number in range(4)] == [1, 1, 1, 0]


def test_data_cannot_end_the_script_that_holds_it() -> None:
    chart = LineChart(
        "</script><script>alert(1)</script>", "x", "y", (Series("</script>", (0.0,), (1.0,)),), "</script>"
    )
    page = page_of(Document("t", (), (Section("s", (Part("", (chart,)),)),)))
    assert "alert(1)</script>" not in page and page.count("</script>") == page.count("<script")


def test_characters_that_control_a_terminal_or_turn_text_around_are_escaped() -> None:
    name = "a\x1b[31m\u202eb"
    chart = BarChart(name, name, name, (BarSeries(name, (Bar(name, 0.5),)),), name)
    document = Document(
        name, (name,), (Section(name, (Part(name, (chart, Paragraph(name), Code(name, name))),), name),)
    )
    for text in (page_of(document), card_of(document)):
        assert not any(character in text for character in "\x1b\u202e") and "x1b" in text


def test_a_page_without_figures_leaves_the_library_out() -> None:
    assert len(page_of(Document("t", (), (Section("s", (Part("", (Paragraph("p"),)),)),)))) < 50_000


def test_a_section_without_content_is_left_out() -> None:
    assert section("s", [Part("a", ())]) is None
    assert section("s", [Part("a", ()), Part("b", (Paragraph("p"),))]) == Section("s", (Part("b", (Paragraph("p"),)),))


def test_markdown_shows_markup_as_text_and_fences_hold() -> None:
    blocks = (Paragraph("*a* | <b>\n# no heading [x](y)"), Code("c", "```\nx\n```"))
    card = card_of(Document("t", (), (Section("s", (Part("", blocks),)),)))
    assert "\\*a\\* \\| &lt;b&gt; \\# no heading \\[x\\]\\(y\\)" in card
    assert "\n````\n```\nx\n```\n````\n" in card


def test_a_long_chart_is_thinned_in_markdown_with_both_ends() -> None:
    series = Series("", tuple(range(100)), tuple(float(k) for k in range(100)))
    card = card_of(Document("t", (), (Section("s", (Part("", (LineChart("c", "x", "y", (series,), "w"),)),)),)))
    rows = [line for line in card.splitlines() if line.startswith("| ") and line[2].isdigit()]
    assert len(rows) == 12 and rows[0].startswith("| 0 |") and rows[-1].startswith("| 99 |")
