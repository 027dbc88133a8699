"""The picture of clean against robust accuracy: where the numbers say, and hollow where another point is better."""

import math
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unperturbed.errors import InputError
from unperturbed.findings import Interval
from unperturbed.reports.charts.curves import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH
from unperturbed.reports.charts.trade_off import RADIUS, Point, mark_dominated, trade_off_svg

SVG = "{http://www.w3.org/2000/svg}"


def share(value: float, width: float = 0.02) -> Interval:
    return Interval(value, max(value - width, 0.0), min(value + width, 1.0), 100)


def points(*pairs: tuple[float, float]) -> list[Point]:
    return [Point(f"p{k}", share(clean), share(robust)) for k, (clean, robust) in enumerate(pairs)]


def ticks(root: ElementTree.Element) -> tuple[dict[str, float], dict[str, float]]:
    """Return where the numbers of the two axes stand."""
    axes = next(group for group in root.iter(f"{SVG}g") if group.attrib.get("class") == "axes")
    words = [(text.text or "", text.attrib) for text in axes.iter(f"{SVG}text")]
    across = {text: float(each["x"]) for text, each in words if each["text-anchor"] == "middle"}
    return across, {text: float(each["y"]) - 4 for text, each in words if each["text-anchor"] == "end"}


def place(value: float, axis: dict[str, float]) -> float:
    """Return where a value belongs, between the first and the last number of its axis."""
    (low, start), (high, end) = (
        (float(k.rstrip("%")) / 100, v) for k, v in (list(axis.items())[0], list(axis.items())[-1])
    )
    return start + (end - start) * (value - low) / (high - low)


# Domination


def test_a_point_is_dominated_by_one_at_least_as_good_in_both_and_better_in_one() -> None:
    marked = mark_dominated(points((0.9, 0.5), (0.9, 0.4), (0.8, 0.5), (0.95, 0.3), (0.7, 0.6), (0.9, 0.5)))
    assert [point.dominated for point in marked] == [False, True, True, False, False, False]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=8))
def test_what_is_left_is_a_front_and_nothing_better_was_marked(pairs: list[tuple[int, int]]) -> None:
    marked = mark_dominated(points(*((a / 4, b / 4) for a, b in pairs)))
    left = {pair for pair, point in zip(pairs, marked, strict=True) if not point.dominated}
    rising = sorted(left)
    assert rising and [b for _, b in rising] == sorted({b for _, b in left}, reverse=True), (
        "more of one is less of the other"
    )
    for pair, point in zip(pairs, marked, strict=True):
        assert point.dominated == any(a >= pair[0] and b >= pair[1] and (a, b) != pair for a, b in left)


# The picture


def test_points_and_bars_lie_where_the_numbers_say() -> None:
    drawn = [replace(point, dominated=k == 1) for k, point in enumerate(points((0.95, 0.4), (0.9, 0.3)))]
    root = ElementTree.fromstring(trade_off_svg(drawn, "Title", "caption"))
    across, up = ticks(root)
    circles, bars = list(root.iter(f"{SVG}circle")), [p for p in root.iter(f"{SVG}path") if p.get("class") == "bars"]
    for point, circle, path in zip(drawn, circles, bars, strict=True):
        x, y = place(point.clean.value, across), place(point.robust.value, up)
        assert (float(circle.attrib["cx"]), float(circle.attrib["cy"])) == pytest.approx((x, y), abs=0.15)
        ends = [float(number) for number in re.findall(r"-?[\d.]+", path.attrib["d"])]
        expected = [
            place(point.clean.low, across),
            y,
            x - RADIUS,
            place(point.clean.high, across),
            y,
            x + RADIUS,
            x,
            place(point.robust.low, up),
            y + RADIUS,
            x,
            place(point.robust.high, up),
            y - RADIUS,
        ]
        assert ends == pytest.approx(expected, abs=0.15)
        assert str(point.robust) in (circle[0].text or "")
    assert [circle.attrib["fill"] == "none" for circle in circles] == [False, True]
    assert {"Title", "caption", "p0", "p1"} <= {text.text for text in root.iter(f"{SVG}text")}


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=6))
def test_axes_hold_every_interval_and_names_stay_inside(pairs: list[tuple[float, float]]) -> None:
    drawn = points(*pairs)
    root = ElementTree.fromstring(trade_off_svg(drawn, "t", ""))
    for axis, values in zip(ticks(root), ([p.clean for p in drawn], [p.robust for p in drawn]), strict=True):
        numbers = [float(text.rstrip("%")) / 100 for text in axis]
        assert 2 <= len(numbers) <= 9 and numbers == sorted(numbers) and 0 <= numbers[0] and numbers[-1] <= 1
        assert numbers[0] <= min(each.low for each in values) + 1e-4
        assert numbers[-1] >= max(each.high for each in values) - 1e-4
    group = next(each for each in root.iter(f"{SVG}g") if each.attrib.get("class") == "names")
    for text in group:
        assert LEFT <= float(text.attrib["x"]) <= WIDTH - RIGHT and TOP <= float(text.attrib["y"]) <= HEIGHT - BOTTOM


def test_names_keep_out_of_each_others_way() -> None:
    root = ElementTree.fromstring(trade_off_svg(points((0.5, 0.5), (0.501, 0.501), (0.502, 0.5)), "t", ""))
    group = next(each for each in root.iter(f"{SVG}g") if each.attrib.get("class") == "names")
    places = [(float(text.attrib["x"]), float(text.attrib["y"])) for text in group]
    assert all(abs(a - c) > 12 or abs(b - d) > 10 for k, (a, b) in enumerate(places) for c, d in places[:k])


def test_a_name_stands_nearest_to_its_own_point() -> None:
    pairs = [(0.99, 0.88), (0.984, 0.901), (0.975, 0.907), (0.96, 0.905), (0.955, 0.89), (0.985, 0.899)]
    drawn = [replace(point, name=f"{point.name}, trades") for point in points(*pairs)]
    root = ElementTree.fromstring(trade_off_svg(drawn, "t", ""))
    group = next(each for each in root.iter(f"{SVG}g") if each.attrib.get("class") == "names")
    centres = [(float(each.attrib["cx"]), float(each.attrib["cy"])) for each in root.iter(f"{SVG}circle")]
    for k, text in enumerate(group):
        x, y = float(text.attrib["x"]), float(text.attrib["y"]) - 4
        away = [math.hypot(x - a, y - b) for a, b in centres]
        assert text.text == f"p{k}, trades" and away.index(min(away)) == k


def test_names_are_escaped_and_nothing_is_fetched() -> None:
    name = "<b>&\"'\x00\ud800</text>"
    svg = trade_off_svg([replace(points((0.5, 0.5))[0], name=name)], name, name)
    svg.encode()
    ElementTree.fromstring(svg)
    assert not re.search(r"href|url\(|@import|<script|<image|<rect", svg) and svg.count("http") == 1


@pytest.mark.parametrize(
    "drawn",
    [[], [Point("", Interval(math.nan, 0, 1, 5), share(0.5))], [Point("", share(0.5), Interval(0.5, 0, math.inf, 5))]],
)
def test_what_cannot_be_drawn_is_refused(drawn: list[Point]) -> None:
    with pytest.raises(InputError):
        trade_off_svg(drawn, "t", "")
