"""`unperturbed methods --choose`: its numbers are those of docs/results.md, and its picks those of its rule."""

import json
import re
from pathlib import Path

import pytest
from test_main import Run
from test_main import run as run

from unperturbed.catalogue import listing
from unperturbed.cli.choice import SECOND_DERIVATIVES, TABLES, Measured, Row, picks

DOCS = Path(__file__).parents[2] / "docs"
NUMBERS = r"([\d.]+)% \[([\d.]+)%, ([\d.]+)%\]"


def tables_of_the_page() -> list[dict[str, Row]]:
    """Return the tables of docs/results.md that have a robust accuracy with an interval and seconds of each method."""
    tables: list[dict[str, Row]] = []
    for block in re.split(r"\n\n", (DOCS / "results.md").read_text()):
        head, *lines = block.splitlines() or [""]
        names = [name.strip() for name in head.split("|")]
        column = next((index for index, name in enumerate(names) if name.startswith("seconds")), None)
        robust = next((index for index, name in enumerate(names) if name.startswith("robust, ")), None)
        if names[1:2] != ["method"] or column is None or robust is None:
            continue
        rows = {}
        for line in lines[1:]:
            cells = [cell.strip() for cell in line.split("|")]
            numbers = re.match(NUMBERS, cells[robust])
            if numbers:
                rows[cells[1].strip("`")] = Row(
                    cells[1].strip("`"), *map(float, numbers.groups()), float(cells[column])
                )
        tables.append(rows)
    return tables


@pytest.mark.parametrize("measured", TABLES, ids=lambda measured: measured.section)
def test_the_rows_are_those_of_the_page(measured: Measured) -> None:
    assert {row.method: row for row in measured.rows} in tables_of_the_page()
    assert measured.rows[0].method == "erm" and {row.method for row in measured.rows} <= set(listing("methods"))


def test_second_derivatives_are_those_of_the_page_on_methods() -> None:
    sections = re.findall(r"^## (\S+)\n.*?^- Cost: (.*?)^- When", (DOCS / "methods.md").read_text(), re.DOTALL | re.M)
    assert sorted(name for name, cost in sections if "second derivative" in cost) == sorted(SECOND_DERIVATIVES)


def test_a_pick_is_decidedly_better_than_every_cheaper_one() -> None:
    rows = (
        Row("plain", 10, 8, 12, 100),
        Row("dear", 60, 55, 65, 600),
        Row("cheap", 50, 45, 56, 200),
        Row("no better", 53, 49, 57, 250),
        Row("worse", 20, 15, 25, 300),
    )
    plain, cheap, dear = picks(Measured("a table", "", rows))
    assert (plain.method, plain.time, plain.alike) == ("plain", 1.0, ())
    assert (cheap.method, cheap.time, cheap.alike) == ("cheap", 2.0, ("no better",))  # 60 is above its interval
    assert (dear.method, dear.time, dear.alike) == ("dear", 6.0, ())


def test_the_command_names_method_cost_and_table(run: Run) -> None:
    code, out, err = run("methods", "--choose")
    assert code == 0 and err == ""
    assert all(measured.section in out for measured in TABLES) and "docs/results.md" in out and "Linf" in out
    code, out, _ = run("methods", "--choose", "--json")
    values = json.loads(out)
    assert code == 0 and [value["method"] for value in values if value["section"] == TABLES[0].section] == [
        "erm",
        "free",
        "at",
    ]
    assert {"time", "robust", "low", "high", "alike", "second_derivatives", "measured"} <= set(values[0])


def test_the_page_on_methods_shows_the_picks() -> None:
    text = (DOCS / "methods.md").read_text().partition("## Choosing a method")[2].partition("\n## ")[0]
    shown = re.findall(r"^\| (.*?) \| ([\d.]+) \| `(.*?)` \| " + NUMBERS + r" \| (.*?) \|$", text, re.MULTILINE)
    expected = [
        (measured.section, f"{pick.time:.1f}", pick.method, f"{pick.robust:.1f}", f"{pick.low:.1f}", f"{pick.high:.1f}")
        for measured in TABLES
        for pick in picks(measured)
    ]
    assert [row[:6] for row in shown] == expected
    assert [re.findall(r"`(.*?)`", row[6]) for row in shown] == [
        list(pick.alike) for measured in TABLES for pick in picks(measured)
    ]
