"""Clean against robust accuracy, as a picture that stands alone: what is given up of the one for the other."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from unperturbed.errors import InputError
from unperturbed.findings import Interval
from unperturbed.reports.charts.curves import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, headings
from unperturbed.reports.charts.svg import COLOURS, FAINT, opening, plain, size

RADIUS = 4.5
Box = tuple[float, float, float, float]
"""Left, top, right and bottom, in pixels."""


@dataclass(frozen=True)
class Point:
    """A model, or several that differ in their seed alone.

    Attributes:
        name: what it is called in the picture.
        clean: accuracy without an attack.
        robust: accuracy under attack.
        dominated: whether another one is at least as good in both, and better in one.
    """

    name: str
    clean: Interval
    robust: Interval
    dominated: bool = False


def mark_dominated(points: Sequence[Point]) -> list[Point]:
    """Return the points with the dominated ones marked: by the values alone, whatever their intervals."""

    def beats(one: Point, other: Point) -> bool:
        ours, theirs = (one.clean.value, one.robust.value), (other.clean.value, other.robust.value)
        return ours != theirs and ours[0] >= theirs[0] and ours[1] >= theirs[1]

    return [replace(point, dominated=any(beats(other, point) for other in points)) for point in points]


def trade_off_svg(points: Sequence[Point], title: str, caption: str) -> str:
    """Return an SVG with a point a model, clean accuracy across and robust accuracy upwards, bars for the intervals.

    The axes reach from the lowest to the highest end of an interval, not from 0. Dominated points are hollow.

    Raises:
        InputError: without points, and on values that are not finite.
    """
    if not points:
        raise InputError("There is no point to draw: give at least one.")
    for point in points:
        ends = [end for each in (point.clean, point.robust) for end in (each.value, each.low, each.high)]
        if not all(map(math.isfinite, ends)):
            raise InputError(f"The point {point.name!r} holds values that are not finite: it cannot be drawn.")
    axes = _Axes(_ticks([point.clean for point in points]), _ticks([point.robust for point in points]))
    below = "clean accuracy, 95% interval · hollow: another point is at least as good in both"
    words = headings(title, caption, below, "robust accuracy, 95% interval")
    drawn = [axes.point(point) for point in points]
    return opening(WIDTH, HEIGHT, title) + "\n".join([words, axes.grid(), *drawn, axes.names(points)]) + "\n</svg>\n"


@dataclass(frozen=True)
class _Axes:
    """The ticks of both accuracies, whose ends are those of the axes."""

    across: Sequence[float]
    up: Sequence[float]

    def at(self, clean: float, robust: float) -> tuple[float, float]:
        """Return where a point is drawn."""
        x, y = (
            (value - ticks[0]) / (ticks[-1] - ticks[0])
            for value, ticks in ((clean, self.across), (robust, self.up))
        )  # fmt: skip
        return LEFT + (WIDTH - LEFT - RIGHT) * x, TOP + (HEIGHT - TOP - BOTTOM) * (1 - y)

    def grid(self) -> str:
        """Return the axes, with their lines and numbers."""
        paths, words = [], []
        for robust in self.up:
            (x, y), (end, _) = self.at(self.across[0], robust), self.at(self.across[-1], robust)
            paths.append(f"M{x:.1f} {y:.1f}H{end:.1f}")
            words.append(f'<text x="{x - 7:.1f}" y="{y + 4:.1f}" text-anchor="end">{100 * robust:.4g}%</text>')
        for clean in self.across:
            (x, y), (_, end) = self.at(clean, self.up[0]), self.at(clean, self.up[-1])
            paths.append(f"M{x:.1f} {y:.1f}V{end:.1f}")
            words.append(f'<text x="{x:.1f}" y="{y + 17:.1f}" text-anchor="middle">{100 * clean:.4g}%</text>')
        lines = f'<path d="{"".join(paths)}" fill="none" stroke="{FAINT}" stroke-width=".7" stroke-opacity=".5"/>'
        return f'<g class="axes">{lines}{"".join(words)}</g>'

    def point(self, point: Point) -> str:
        """Return a point with its bars, which end at its rim, so that hollow ones are empty; it tells its numbers."""
        x, y = self.at(point.clean.value, point.robust.value)
        (left, low), (right, high) = (
            self.at(point.clean.low, point.robust.low),
            self.at(point.clean.high, point.robust.high),
        )
        bars = [
            *(f"M{end:.1f} {y:.1f}H{rim:.1f}" for end, rim in ((left, x - RADIUS), (right, x + RADIUS))
              if abs(end - x) > RADIUS),
            *(f"M{x:.1f} {end:.1f}V{rim:.1f}" for end, rim in ((low, y + RADIUS), (high, y - RADIUS))
              if abs(end - y) > RADIUS),
        ]  # fmt: skip
        colour = COLOURS[0]
        told = plain(f"{point.name}: clean {point.clean}; robust {point.robust}")
        return (
            f'<g><path class="bars" d="{"".join(bars)}" fill="none" stroke="{colour}" stroke-opacity=".75"/>'
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{RADIUS}" stroke="{colour}" stroke-width="1.6" '
            f'fill="{"none" if point.dominated else colour}" pointer-events="all"><title>{told}</title></circle></g>'
        )

    def names(self, points: Sequence[Point]) -> str:
        """Return the names, each nearest to its own point, where it covers least of points, bars and other names."""
        centres = [self.at(point.clean.value, point.robust.value) for point in points]
        taken = [box for point in points for box in self.boxes(point)]
        words = []
        for point, (x, y) in zip(points, centres, strict=True):
            font = float(size(point.name, 11, WIDTH / 3))
            width, away = 0.6 * font * len(point.name), RADIUS + 4
            places = [
                (x + side * (away + width / 2), y + up * (away + font / 2))
                for side, up in ((1, -1), (-1, -1), (1, 1), (-1, 1))
            ] + [
                (x, y - away - font / 2),
                (x, y + away + font / 2),
                (x + away + width / 2, y),
                (x - away - width / 2, y),
            ]
            boxes = [(a - width / 2, b - font / 2, a + width / 2, b + font / 2) for a, b in places]
            costs = [
                sum(_covered(box, other) for other in taken) + _outside(box) + _mistaken(box, (x, y), centres)
                for box in boxes
            ]
            box = boxes[costs.index(min(costs))]
            taken.append(box)
            words.append(
                f'<text x="{(box[0] + box[2]) / 2:.1f}" y="{box[3] - 0.15 * font:.1f}" text-anchor="middle" '
                f'font-size="{font:g}">{plain(point.name)}</text>'
            )
        return f'<g class="names">{"".join(words)}</g>'

    def boxes(self, point: Point) -> list[Box]:
        """Return what a point and its bars cover."""
        x, y = self.at(point.clean.value, point.robust.value)
        (left, low), (right, high) = (
            self.at(point.clean.low, point.robust.low),
            self.at(point.clean.high, point.robust.high),
        )
        rim = RADIUS + 1
        return [(x - rim, y - rim, x + rim, y + rim), (left, y - 1, right, y + 1), (x - 1, high, x + 1, low)]


def _covered(box: Box, other: Box) -> float:
    """Return the area that two boxes share."""
    width, height = min(box[2], other[2]) - max(box[0], other[0]), min(box[3], other[3]) - max(box[1], other[1])
    return max(width, 0.0) * max(height, 0.0)


def _outside(box: Box) -> float:
    """Return how much a name that leaves the axes should be avoided: more than any overlap."""
    over = max(LEFT - box[0], box[2] - (WIDTH - RIGHT), TOP - box[1], box[3] - (HEIGHT - BOTTOM), 0.0)
    return 1000.0 * over


def _mistaken(box: Box, own: tuple[float, float], centres: Sequence[tuple[float, float]]) -> float:
    """Return how much a name should be avoided whose middle is nearer to other points than to its own."""
    middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return 1000.0 * sum(math.dist(middle, other) < math.dist(middle, own) for other in centres)


def _ticks(values: Sequence[Interval]) -> list[float]:
    """Return round shares around the intervals, within [0, 1], three to eight of them."""
    low, high = min(each.low for each in values), max(each.high for each in values)
    low, high = min(low, 0.99), max(high, min(low, 0.99) + 0.01)
    step = next(s for s in (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2) if 6 * s >= high - low)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * k for k in range(max(first, 0), min(last, round(1 / step)) + 1)]
