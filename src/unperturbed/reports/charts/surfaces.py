"""Loss surfaces side by side, as a picture that stands alone: SVG with nothing to fetch, for light and dark pages."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unperturbed.errors import InputError
from unperturbed.reports.charts.svg import FAINT, opening, plain, size

Point = tuple[float, float]
Colour = tuple[float, float, float]

ACROSS = 3
"""Panels in a row, at most."""
WIDTH, HEIGHT = 340, 352
CENTRE: Point = (178, 214)
"""Where in its panel the middle of the floor is."""
HALF_WIDTH, HALF_DEPTH, RISE = 64.0, 30.0, 118.0
"""Pixels to the side and into the depth for a half of either axis, and upwards for the whole scale of the loss."""
SCALE: tuple[Colour, ...] = ((49, 84, 158), (54, 139, 173), (106, 187, 160), (226, 208, 122), (226, 128, 78))
"""From the lowest loss to the highest."""
LINE = 'fill="none" stroke="#0b1a33" stroke-opacity=".6"'
DOT = 'fill="#fff" stroke="#24292f"'
RING = 'fill="none" stroke="#24292f"'
LIGHT = (-0.35, -0.55, 0.76)
"""From where the light comes: (gradient direction, random direction, loss)."""


@dataclass(frozen=True)
class Panel:
    """The surface of one model: `values[i][j]` is the loss at along[i] on the first axis, along[j] on the second.

    Attributes:
        name: the model's.
        caption: one number, with words that say what it is.
        along: positions in units of eps, rising; the same on both axes.
        values: the loss at each pair of them.
    """

    name: str
    caption: str
    along: Sequence[float]
    values: Sequence[Sequence[float]]


def surfaces_svg(panels: Sequence[Panel], title: str) -> str:
    """Return an SVG with one panel a model: its loss over (gradient direction, random direction), seen from above.

    Parallel projection with the same scales in each panel, so that heights compare. The nearest corner is that of the
    two negative ends. Hidden parts are painted over: of a function over a square, rows further off are painted first.

    Raises:
        InputError: without panels; on values that do not fit their positions or are not finite, and positions that do
            not rise.
    """
    if not panels:
        raise InputError("There is no surface to draw: give at least one.")
    for panel in panels:
        _check(panel)
    ticks = _ticks([value for panel in panels for row in panel.values for value in row])
    reach = max(max(abs(panel.along[0]), abs(panel.along[-1])) for panel in panels)
    down = math.ceil(len(panels) / ACROSS)
    across = math.ceil(len(panels) / down)
    width, height = across * WIDTH, down * HEIGHT + 52
    words = plain(title)
    drawn = [
        f'<g class="panel" transform="translate({k % across * WIDTH} {24 + k // across * HEIGHT})">\n'
        f"{_View(reach, ticks).panel(panel)}\n</g>"
        for k, panel in enumerate(panels)
    ]
    return (
        opening(width, height, title, 'text-anchor="middle" ')
        + f'<text x="{width / 2:g}" y="27" font-size="{size(title, 17, width - 16)}" font-weight="600">{words}</text>\n'
        + "\n".join(drawn)
        + f'\n<text x="{width / 2:g}" y="{height - 12}"><tspan {DOT} stroke-width=".8" font-size="13">●</tspan> '
        "the example itself · the same scales throughout</text>\n</svg>\n"
    )


@dataclass(frozen=True)
class _View:
    """What all panels share: how far the axes reach, and the ticks of the loss, whose ends are those of its scale."""

    reach: float
    ticks: tuple[float, ...]

    def height(self, value: float) -> float:
        """Return where on the scale of the loss a value is, from 0 to 1."""
        return (value - self.ticks[0]) / (self.ticks[-1] - self.ticks[0])

    def at(self, a: float, b: float, value: float) -> Point:
        """Return where in its panel a point is drawn."""
        across, deep = (a - b) / self.reach, (a + b) / self.reach
        return (
            CENTRE[0] + HALF_WIDTH * across,
            CENTRE[1] - HALF_DEPTH * deep - RISE * self.height(value),
        )

    def panel(self, panel: Panel) -> str:
        """Return the axes, the surface and the words of one model."""
        middle = CENTRE[0]
        name, caption = plain(panel.name), plain(panel.caption)
        return "\n".join(
            [
                f'<g class="axes" fill="none" stroke="{FAINT}" stroke-width=".7">{self.walls()}</g>',
                f'<g class="surface" stroke-width=".6">{self.surface(panel)}</g>',
                self.labels(),
                f'<text class="name" x="{middle:g}" y="324" font-size="{size(panel.name, 14, WIDTH - 16)}" '
                f'font-weight="600">{name}</text>',
                f'<text class="caption" x="{middle:g}" y="342" font-size="{size(panel.caption, 12, WIDTH - 16)}">'
                f"{caption}</text>",
            ]
        )

    def walls(self) -> str:
        """Return the floor and the two walls behind the surface, with a line for each tick."""
        r, low, high = self.reach, self.ticks[0], self.ticks[-1]
        floor = [self.at(-r, -r, low), self.at(r, -r, low), self.at(r, r, low), self.at(-r, r, low)]
        behind = [self.at(-r, r, low), self.at(-r, r, high), self.at(r, r, high), self.at(r, -r, high), floor[1]]
        level = [_path([self.at(-r, r, z), self.at(r, r, z), self.at(r, -r, z)]) for z in self.ticks[:-1]]
        upright = [
            _path([self.at(a, -r, low), self.at(a, r, low), self.at(a, r, high)])
            + _path([self.at(-r, a, low), self.at(r, a, low), self.at(r, a, high)])
            for a in (-r / 2, 0.0, r / 2)
        ]
        return (
            f'<path d="{_path(floor)}Z" fill="{FAINT}" fill-opacity=".12"/>'
            f'<path d="{_path(behind)}{_path([floor[2], behind[2]])}"/>'
            f'<path d="{"".join(level + upright)}" stroke-opacity=".4"/>'
        )

    def surface(self, panel: Panel) -> str:
        """Return the facets, those behind first, and the mark of the example: a dot among them, a ring above all."""
        along, last = panel.along, len(panel.along) - 1
        places = sorted(((i, j) for i in range(last) for j in range(last)), key=lambda place: -sum(place))
        drawn = [self.facet(panel, i, j) for i, j in places]
        middle = min(range(last + 1), key=lambda k: abs(along[k]))
        x, y = self.at(along[middle], along[middle], panel.values[middle][middle])
        dot, ring = (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" {paint}/>' for paint in (DOT, RING))
        # what lies close before it is painted first: the dot is wider than a facet
        drawn.insert(sum(i + j >= 2 * middle - 4 for i, j in places), dot)
        return "".join([*drawn, ring])

    def facet(self, panel: Panel, i: int, j: int) -> str:
        """Return one facet, with the lines of the grid that run along it."""
        along, last = panel.along, len(panel.along) - 1
        corners = [(m, n, panel.values[m][n]) for m, n in ((i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1))]
        near, right, far, left = (self.at(along[m], along[n], value) for m, n, value in corners)
        colour = self.colour(along[i + 1] - along[i], along[j + 1] - along[j], [value for _, _, value in corners])
        every = max(1, round(last / 8))
        lines = [
            *([(near, left)] if i % every == 0 else []),
            *([(near, right)] if j % every == 0 else []),
            *([(right, far)] if i + 1 == last else []),
            *([(left, far)] if j + 1 == last else []),
        ]
        path = "".join(_path(line) for line in lines)
        return f'<path d="{_path([near, right, far, left])}Z" fill="{colour}" stroke="{colour}"/>' + (
            f'<path d="{path}" {LINE}/>' if lines else ""
        )

    def colour(self, da: float, db: float, values: Sequence[float]) -> str:
        """Return the colour of a facet: its height on the scale, and how far it faces the light (Lambert's law)."""
        near, right, far, left = (self.height(value) for value in values)
        # on screen, the whole scale is about as long as an axis: heights and lengths in the same unit
        by_a = (right + far - near - left) / 2 / (da / self.reach / 2) * 0.8
        by_b = (left + far - near - right) / 2 / (db / self.reach / 2) * 0.8
        facing = (LIGHT[2] - LIGHT[0] * by_a - LIGHT[1] * by_b) / math.hypot(1.0, by_a, by_b) / math.hypot(*LIGHT)
        shade = 0.62 + 0.5 * max(0.0, facing)
        place = min(max((near + right + far + left) / 4, 0.0), 1.0) * (len(SCALE) - 1)
        k = min(int(place), len(SCALE) - 2)
        mixed = (low + (place - k) * (high - low) for low, high in zip(SCALE[k], SCALE[k + 1], strict=True))
        return "#" + "".join(f"{min(255, round(part * shade)):02x}" for part in mixed)

    def labels(self) -> str:
        """Return the numbers and the names of the three axes."""
        r, low = self.reach, self.ticks[0]
        slope = math.degrees(math.atan2(HALF_DEPTH, HALF_WIDTH))
        drawn = []
        for a in (-r, 0.0, r):
            for (x, y), side, anchor in ((self.at(a, -r, low), 1, "start"), (self.at(-r, a, low), -1, "end")):
                place = f'x="{x + 5 * side:.1f}" y="{y + 17:.1f}" text-anchor="{anchor}"'
                drawn.append(f"<text {place}>{_in_eps(a)}</text>")
        for words, side in (("gradient direction", 1), ("random direction", -1)):
            x, y = CENTRE[0] + side * (HALF_WIDTH + 22), CENTRE[1] + HALF_DEPTH + 39
            turned = f"translate({x:.1f} {y:.1f}) rotate({-side * slope:.1f})"
            drawn.append(f'<text transform="{turned}" font-size="12">{words}</text>')
        for value in self.ticks:
            x, y = self.at(-r, r, value)
            drawn.append(
                f'<text class="tick" x="{x - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{_number(value)}</text>'
            )
        x, y = self.at(-r, r, (self.ticks[0] + self.ticks[-1]) / 2)
        drawn.append(f'<text transform="translate({x - 34:.1f} {y:.1f}) rotate(-90)" font-size="12">loss</text>')
        return f'<g class="labels">{"".join(drawn)}</g>'


def _check(panel: Panel) -> None:
    n = len(panel.along)
    if n < 2 or any(not low < high for low, high in zip(panel.along, panel.along[1:], strict=False)):
        raise InputError(f"The positions of {panel.name!r} must be at least two and rise, but are {list(panel.along)}.")
    if len(panel.values) != n or any(len(row) != n for row in panel.values):
        raise InputError(f"The surface of {panel.name!r} must have {n} rows of {n} values, as many as positions.")
    if not all(math.isfinite(value) for row in (*panel.values, panel.along) for value in row):
        raise InputError(f"The surface of {panel.name!r} holds values that are not finite: it cannot be drawn.")


def _ticks(values: Sequence[float]) -> tuple[float, ...]:
    """Return three to six round numbers that enclose the values; a flat surface gets a scale of its size."""
    low, high = min(values), max(values)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        low, high = low - max(abs(low), 1.0) / 2, high + max(abs(high), 1.0) / 2
    size = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= (high - low) / 4 * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return tuple(step * k for k in range(first, last + 1))


def _in_eps(step: float) -> str:
    if step == 0:
        return "0"
    return ("−" if step < 0 else "") + ("" if abs(step) == 1 else f"{abs(step):.3g}") + "ε"


def _number(value: float) -> str:
    return f"{value:.6g}".replace("-", "−")


def _path(points: Sequence[Point]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
