"""The picture of loss surfaces: well-formed, complete, the same scale in each panel, nearer facets in front."""

import math
import re
from xml.etree import ElementTree

import pytest

from unperturbed.errors import InputError
from unperturbed.reports.charts.surfaces import Panel, Point, surfaces_svg

ALONG = (-1.0, -0.5, 0.0, 0.5, 1.0)
SVG = "{http://www.w3.org/2000/svg}"


def plane(offset: float, by_a: float = 0.0, by_b: float = 0.0, name: str = "model") -> Panel:
    return Panel(name, "0.12 rough", ALONG, [[offset + by_a * a + by_b * b for b in ALONG] for a in ALONG])


def panels_of(svg: str) -> list[ElementTree.Element]:
    return ElementTree.fromstring(svg).findall(f"{SVG}g[@class='panel']")


def facets(panel: ElementTree.Element) -> list[list[Point]]:
    """Return the corners of each facet in the order of painting: nearest, right, furthest, left."""
    surface = panel.find(f"{SVG}g[@class='surface']")
    assert surface is not None
    paths = [path.attrib["d"] for path in surface.findall(f"{SVG}path") if path.attrib["fill"] != "none"]
    pairs = [re.findall(r"(-?[\d.]+) (-?[\d.]+)", path) for path in paths]
    return [[(float(x), float(y)) for x, y in corners] for corners in pairs]


def words(panel: ElementTree.Element) -> list[str]:
    return [text.text or "" for text in panel.iter(f"{SVG}text")]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_each_model_has_one_panel_with_its_name_and_number_and_the_axes(count: int) -> None:
    svg = surfaces_svg([plane(1.0, by_a=k, name=f"model {k}") for k in range(count)], "A title")
    panels = panels_of(svg)
    assert len(panels) == count and "A title" in svg
    for k, panel in enumerate(panels):
        found = words(panel)
        assert f"model {k}" in found and "0.12 rough" in found
        assert {"gradient direction", "random direction", "loss", "−ε", "0", "ε"} <= set(found)
        assert len(facets(panel)) == 16


def test_panels_lie_inside_the_picture_and_apart() -> None:
    svg = surfaces_svg([plane(1.0, by_a=1.0) for _ in range(7)], "title")
    root = ElementTree.fromstring(svg)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    corners = [tuple(map(float, re.findall(r"[\d.]+", p.attrib["transform"]))) for p in panels_of(svg)]
    assert len(set(corners)) == 7
    for left, top in corners:
        for x, y in sum(facets(panels_of(svg)[0]), []):
            assert 0 <= left + x <= width and 0 <= top + y <= height


def test_names_are_escaped_and_what_xml_cannot_hold_is_left_out() -> None:
    name = "<b>&\"'\x00\ud800</text>"
    svg = surfaces_svg([plane(1.0, name=name)], title=name)
    svg.encode()
    assert words(panels_of(svg)[0])[-2].replace(" ", "") == "<b>&\"'</text>"
    title = ElementTree.fromstring(svg).findtext(f"{SVG}title")
    assert title is not None and title.startswith("<b>&\"'")


def test_nothing_is_fetched_and_no_background_hides_the_page() -> None:
    svg = surfaces_svg([plane(1.0, by_a=0.5)], "title")
    assert not re.search(r"href|url\(|@import|<script|<image|<rect", svg)
    assert svg.count("http") == 1, "the name of the format alone"


def test_the_same_loss_has_the_same_height_in_each_panel() -> None:
    """Planes z = 1, 2, 1 + a: where a = 0 the third touches the first, and where a = 1 the second."""
    first, second, third = (facets(panel) for panel in panels_of(
        surfaces_svg([plane(1.0), plane(2.0), plane(1.0, by_a=1.0)], "title")))  # fmt: skip
    lowest, higher, tilted = (sorted({point for facet in panel for point in facet}) for panel in (first, second, third))
    # the points (a, b) in the order of a: rows from the front to the back on the right
    assert len(lowest) == len(higher) == 25
    rise = {round(low[1] - high[1], 1) for low, high in zip(lowest, higher, strict=True)}
    assert max(rise) - min(rise) < 0.15 and min(rise) > 20
    assert len(set(lowest) & set(tilted)) == 5 and len(set(higher) & set(tilted)) == 5


def test_heights_are_linear_in_the_loss_and_tell_the_ticks() -> None:
    """Of planes z = 0, 1, 4, the distances are as 1 to 3, and tick labels stand at the height of their corners."""
    panels = panels_of(surfaces_svg([plane(0.0), plane(1.0), plane(4.0)], "title"))
    heights = [min(facets(panel)[0], key=lambda point: point[1])[1] for panel in panels]
    assert math.isclose(heights[0] - heights[2], 4 * (heights[0] - heights[1]), abs_tol=0.5)
    labels = panels[0].find(f"{SVG}g[@class='labels']")
    assert labels is not None
    ticks = {t.text: float(t.attrib["y"]) for t in labels if t.attrib.get("class") == "tick"}
    assert list(ticks) == ["0", "1", "2", "3", "4"]
    for panel, loss in zip(panels, ("0", "1", "4"), strict=True):
        left = min((point for facet in facets(panel) for point in facet), key=lambda point: point[0])
        assert abs(ticks[loss] - left[1] - (ticks["0"] - min(p for f in facets(panels[0]) for p in f)[1])) < 0.2


def test_directions_are_not_mixed_up() -> None:
    """The first index runs to the right and away, the second to the left and away; heights go upwards."""
    flat, by_a, by_b = (facets(panel) for panel in panels_of(
        surfaces_svg([plane(0.0), plane(0.0, by_a=1.0), plane(0.0, by_b=1.0)], "title")))  # fmt: skip

    def end(panel: list[list[Point]], side: int) -> Point:
        return max((point for facet in panel for point in facet), key=lambda point: side * point[0])

    assert end(by_a, 1)[1] < end(flat, 1)[1] - 20 and end(by_a, -1)[1] > end(flat, -1)[1] + 20
    assert end(by_b, 1)[1] > end(flat, 1)[1] + 20 and end(by_b, -1)[1] < end(flat, -1)[1] - 20


def test_what_is_further_off_is_painted_first() -> None:
    """On the level, further means higher up on the page: no facet covers one that is painted later."""
    nearest = [facet[0][1] for facet in facets(panels_of(surfaces_svg([plane(1.0)], "title"))[0])]
    assert nearest == sorted(nearest) and nearest[0] < nearest[-1]


def test_axes_reach_as_far_as_the_furthest_panel() -> None:
    far = Panel("far", "", tuple(2 * a for a in ALONG), [[1.0] * 5] * 5)
    near, wide = panels_of(surfaces_svg([plane(1.0), far], "title"))
    assert {"−2ε", "2ε"} <= set(words(near))
    spans = [max(p[0] for f in facets(panel) for p in f) - min(p[0] for f in facets(panel) for p in f)
             for panel in (near, wide)]  # fmt: skip
    assert math.isclose(2 * spans[0], spans[1], abs_tol=0.3)


@pytest.mark.parametrize("offset, slope", [(0.0, 0.0), (5.0, 0.0), (1e-9, 1e-9), (1e6, 3e5), (-2.0, 0.1), (1.0, 1e-12)])
def test_any_finite_surface_can_be_drawn(offset: float, slope: float) -> None:
    panel = panels_of(surfaces_svg([plane(offset, by_a=slope)], "title"))[0]
    points = [point for facet in facets(panel) for point in facet]
    assert all(0 < x < 340 and 0 < y < 352 for x, y in points)
    labels = panel.find(f"{SVG}g[@class='labels']")
    assert labels is not None
    ticks = [t.text for t in labels if t.attrib.get("class") == "tick"]
    assert 2 <= len(ticks) <= 7 and len(set(ticks)) == len(ticks)


@pytest.mark.parametrize(
    "panel, said",
    [
        (Panel("crooked", "", ALONG, [[0.0] * 5] * 4), "5 rows"),
        (Panel("crooked", "", ALONG, [[0.0] * 4] * 5), "5 values"),
        (Panel("crooked", "", ALONG, [[math.nan] * 5] * 5), "finite"),
        (Panel("crooked", "", ALONG, [[math.inf] * 5] * 5), "finite"),
        (Panel("crooked", "", ALONG[::-1], [[0.0] * 5] * 5), "rise"),
        (Panel("crooked", "", (0.0,), [[0.0]]), "two"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(panel: Panel, said: str) -> None:
    with pytest.raises(InputError, match=f"crooked.*{said}"):
        surfaces_svg([plane(1.0), panel], "title")


def test_no_panels_are_refused() -> None:
    with pytest.raises(InputError, match="at least one"):
        surfaces_svg([], "title")
