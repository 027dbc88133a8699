"""The picture of curves: well-formed, where the numbers say, within its frame."""

import math
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from unperturbed.errors import InputError
from unperturbed.findings import Interval
from unperturbed.reports.charts.curves import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Line, curves_svg

SVG = "{http://www.w3.org/2000/svg}"
EPS = (0.0, 0.1, 0.25, 0.4)
VALUES = tuple(Interval(value, value - 0.05, min(value + 0.1, 1.0), 50) for value in (1.0, 0.6, 0.3, 0.05))
LINE = Line("model", EPS, VALUES, (0.1, 0.4))


def points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", path)]


def at(eps: float, value: float, largest: float = 0.4) -> tuple[float, float]:
    """Return where a point belongs: eps from the left to the right edge, the accuracy from the lower to the upper."""
    return (
        LEFT + (WIDTH - LEFT - RIGHT) * eps / largest,
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value,
    )


def same(drawn: list[tuple[float, float]], expected: list[tuple[float, float]]) -> bool:
    return len(drawn) == len(expected) and all(
        abs(a - c) < 0.06 and abs(b - d) < 0.06 for (a, b), (c, d) in zip(drawn, expected, strict=True)
    )


def test_line_band_and_dots_lie_where_the_numbers_say() -> None:
    root = ElementTree.fromstring(curves_svg([LINE], "Title", "caption", "eps (L2)"))
    paths = {path.attrib.get("class"): points(path.attrib["d"]) for path in root.iter(f"{SVG}path")}
    assert same(paths["line"], [at(eps, value.value) for eps, value in zip(EPS, VALUES, strict=True)])
    upper = [at(eps, value.high) for eps, value in zip(EPS, VALUES, strict=True)]
    lower = [at(eps, value.low) for eps, value in zip(EPS, VALUES, strict=True)]
    assert same(paths["band"], [*upper, *reversed(lower)])
    dots = [(float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in root.iter(f"{SVG}circle")]
    assert same(dots, [at(0.1, 0.6), at(0.4, 0.05)])
    told = [title.text for dot in root.iter(f"{SVG}circle") for title in dot]
    assert told[0] == "eps 0.1: 60.0% [55.0%, 70.0%], n=50"
    words = {text.text for text in root.iter(f"{SVG}text")}
    assert {"Title", "caption", "eps (L2)", "0", "0.1", "0.4", "0%", "100%"} <= words


def test_all_lines_share_the_axes_and_have_colours_of_their_own() -> None:
    other = Line("other", [2 * eps for eps in EPS], VALUES)
    root = ElementTree.fromstring(curves_svg([LINE, other], "t", ""))
    drawn = [path for path in root.iter(f"{SVG}path") if path.attrib.get("class") == "line"]
    assert len({path.attrib["stroke"] for path in drawn}) == 2
    assert same(points(drawn[0].attrib["d"])[-1:], [at(0.4, 0.05, 0.8)])
    assert same(points(drawn[1].attrib["d"])[-1:], [at(0.8, 0.05, 0.8)])
    legend = " ".join(root.itertext())
    assert "model" in legend and "other" in legend


@pytest.mark.parametrize("largest", [1 / 255, 8 / 255, 0.3, 1.0, 12.0, 999.0, 1e-6])
def test_the_ticks_are_few_and_round_and_inside(largest: float) -> None:
    line = Line("", [0.0, largest], VALUES[:2])
    root = ElementTree.fromstring(curves_svg([line], "t", ""))
    below = [text for text in root.iter(f"{SVG}text") if text.attrib.get("y") == f"{HEIGHT - BOTTOM + 17:.1f}"]
    assert 2 <= len(below) <= 7 and below[0].text == "0"
    assert all(LEFT <= float(text.attrib["x"]) <= WIDTH - RIGHT + 0.1 for text in below)
    step = float(below[1].text or "")
    assert f"{step:e}"[0] in "125" and f"{step:.1e}"[2] == "0"
    places = [float(text.attrib["x"]) for text in below]
    assert abs(places[1] - at(step, 0, largest)[0]) < 0.1


def test_names_are_escaped_and_nothing_is_fetched() -> None:
    name = "<b>&\"'\x00\ud800</text>"
    svg = curves_svg([replace(LINE, name=name)], name, name)
    svg.encode()
    ElementTree.fromstring(svg)
    assert not re.search(r"href|url\(|@import|<script|<image|<rect", svg) and svg.count("http") == 1


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [replace(LINE, values=VALUES[:2])],
        [Line("", (), ())],
        [replace(LINE, eps=(0.0, 0.2, 0.1, 0.3))],
        [replace(LINE, eps=(-0.1, 0.2, 0.3, 0.4))],
        [Line("", (0.0,), VALUES[:1])],
        [replace(LINE, eps=(0.0, 0.1, 0.2, math.inf), marked=())],
        [replace(LINE, values=(*VALUES[:3], Interval(math.nan, 0.0, 1.0, 5)))],
        [replace(LINE, marked=(0.3,))],
    ],
)
def test_what_cannot_be_drawn_is_refused(lines: list[Line]) -> None:
    with pytest.raises(InputError):
        curves_svg(lines, "t", "")
