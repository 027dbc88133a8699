"""Rows of results as LaTeX, Markdown and CSV: read back, they hold the numbers, and names are text."""

import csv
import io

import pytest

from unperturbed.errors import InputError
from unperturbed.findings import Interval
from unperturbed.reports.rows import Rows

HOSTILE = '=HYPERLINK("http://x") & 50% of_{a}\\b | <b>'
SHARE = Interval(1 / 3, 0.25, 0.4999, 1000)
ROWS = Rows(("network", "n", "robust accuracy", "p"), ((HOSTILE, 1000, SHARE, 1.5e-7), ("at", 10, SHARE, "")))


def test_csv_has_every_number_in_full_and_no_formula() -> None:
    head, first, second = csv.reader(io.StringIO(ROWS.text("csv")))
    assert head == ["network", "n", "robust accuracy", "robust accuracy, low", "robust accuracy, high", "p"]
    assert first[0] == "'" + HOSTILE and first[1] == "1000"
    assert [float(cell) for cell in first[2:]] == [1 / 3, 0.25, 0.4999, 1.5e-7]
    assert second[0] == "at" and second[5] == ""


def test_negative_numbers_are_no_formulas() -> None:
    assert Rows(("difference",), ((Interval(-0.1, -0.2, 0.0, 5),),)).text("csv").splitlines()[1] == "-0.1,-0.2,0.0"
    assert Rows(("difference",), ((-0.5,),)).text("csv").splitlines()[1] == "-0.5"


def test_latex_is_a_tabular_whose_cells_are_text() -> None:
    lines = ROWS.text("latex").splitlines()
    assert lines[0] == r"\begin{tabular}{lrrl}" and lines[-1] == r"\end{tabular}"
    row = lines[4]
    name = (
        r"=HYPERLINK(\textquotedbl{}http://x\textquotedbl{}) \& 50\% of\_\{a\}\textbackslash{}b \textbar{} "
        r"\textless{}b\textgreater{}"
    )
    assert row == rf"{name} & 1000 & 33.3 [25.0, 50.0] & 1.5e-07 \\"
    assert [line for line in lines if line in (r"\toprule", r"\midrule", r"\bottomrule")] == [
        r"\toprule", r"\midrule", r"\bottomrule",
    ]  # fmt: skip


def test_markdown_has_as_many_cells_in_every_row() -> None:
    lines = ROWS.text("markdown").splitlines()
    assert len(lines) == 4 and lines[1] == "| --- | --- | --- | --- |"
    for line in lines:
        assert line.replace(r"\|", "").count("|") == 5
    assert "<b>" not in lines[2]


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(InputError, match="no format 'latx' for a table. Did you mean 'latex'"):
        ROWS.text("latx")
