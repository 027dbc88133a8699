"""Robust accuracy against eps, as a picture that stands alone: SVG with nothing to fetch, for light and dark pages."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unperturbed.errors import InputError
from unperturbed.findings import Interval
from unperturbed.reports.charts.svg import COLOURS, FAINT, opening, plain, size

WIDTH, HEIGHT = 560, 380
LEFT, RIGHT, TOP, BOTTOM = 62.0, 20.0, 62.0, 56.0
"""Margins around the axes."""
ACROSS = WIDTH - LEFT - RIGHT


@dataclass(frozen=True)
class Line:
    """One model's curve: its accuracy at each eps.

    Attributes:
        name: the model's; empty: none is shown.
        eps: the radii, rising.
        values: the accuracy at each, with its interval.
        marked: the radii that get a dot, among `eps`.
    """

    name: str
    eps: Sequence[float]
    values: Sequence[Interval]
    marked: Sequence[float] = ()


def curves_svg(lines: Sequence[Line], title: str, caption: str, across: str = "eps") -> str:
    """Return an SVG with the accuracy of each model over eps, each in the band of its interval; `across` names eps.

    Raises:
        InputError: without lines, and on values that do not fit their radii, or radii that do not rise or are no
            numbers.
    """
    if not lines:
        raise InputError("There is no curve to draw: give at least one.")
    for line in lines:
        _check(line)
    axes = _Axes(max(line.eps[-1] for line in lines))
    colours = [COLOURS[k % len(COLOURS)] for k in range(len(lines))]
    bands = [
        f'<path class="band" d="{axes.band(line)}" fill="{colour}" fill-opacity=".18"/>'
        for line, colour in zip(lines, colours, strict=True)
    ]
    drawn = [axes.line(line, colour) for line, colour in zip(lines, colours, strict=True)]
    words = headings(title, caption, across, "robust accuracy, 95% interval")
    return (
        opening(WIDTH, HEIGHT, title)
        + "\n".join([words, axes.grid(), *bands, *drawn, _legend(lines, colours)])
        + "\n</svg>\n"
    )


def headings(title: str, caption: str, across: str, up: str) -> str:
    """Return the words around the axes: above them, below them, and to their left."""
    middle = (LEFT + WIDTH - RIGHT) / 2
    return (
        f'<g text-anchor="middle">'
        f'<text x="{middle:g}" y="24" font-size="{size(title, 16, ACROSS)}" font-weight="600">{plain(title)}</text>'
        f'<text x="{middle:g}" y="43" font-size="{size(caption, 12, ACROSS)}">{plain(caption)}</text>'
        f'<text x="{middle:g}" y="{HEIGHT - 14}" font-size="12">{plain(across)}</text>'
        f'<text transform="translate(16 {(TOP + HEIGHT - BOTTOM) / 2:g}) rotate(-90)" font-size="12">{plain(up)}</text>'
        "</g>"
    )


@dataclass(frozen=True)
class _Axes:
    """Eps from 0 to a largest one across, and the accuracy from 0 to 1 upwards."""

    largest: float

    def at(self, eps: float, accuracy: float) -> tuple[float, float]:
        """Return where a point is drawn."""
        return (
            LEFT + (WIDTH - LEFT - RIGHT) * eps / self.largest,
            TOP + (HEIGHT - TOP - BOTTOM) * (1 - accuracy),
        )

    def grid(self) -> str:
        """Return the axes, with their lines and numbers."""
        paths, words = [], []
        for k in range(6):
            (x, y), (end, _) = self.at(0.0, k / 5), self.at(self.largest, k / 5)
            paths.append(f"M{x:.1f} {y:.1f}H{end:.1f}")
            words.append(f'<text x="{x - 7:.1f}" y="{y + 4:.1f}" text-anchor="end">{k * 20}%</text>')
        for eps in _ticks(self.largest):
            (x, y), (_, end) = self.at(eps, 0.0), self.at(eps, 1.0)
            paths.append(f"M{x:.1f} {y:.1f}V{end:.1f}")
            words.append(f'<text x="{x:.1f}" y="{y + 17:.1f}" text-anchor="middle">{eps:.6g}</text>')
        lines = f'<path d="{"".join(paths)}" fill="none" stroke="{FAINT}" stroke-width=".7" stroke-opacity=".5"/>'
        return f'<g class="axes">{lines}{"".join(words)}</g>'

    def band(self, line: Line) -> str:
        """Return the outline of the intervals."""
        upper = [self.at(eps, value.high) for eps, value in zip(line.eps, line.values, strict=True)]
        lower = [self.at(eps, value.low) for eps, value in zip(line.eps, line.values, strict=True)]
        return _path([*upper, *reversed(lower)]) + "Z"

    def line(self, line: Line, colour: str) -> str:
        """Return the curve with its dots, each of which tells its number."""
        points = [self.at(eps, value.value) for eps, value in zip(line.eps, line.values, strict=True)]
        told = dict(zip(line.eps, line.values, strict=True))
        dots = []
        for eps in line.marked:
            x, y = self.at(eps, told[eps].value)
            words = plain(f"eps {eps:.4g}: {told[eps]}")
            dots.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"><title>{words}</title></circle>')
        path = f'<path class="line" d="{_path(points)}" fill="none" stroke="{colour}" stroke-width="1.8"/>'
        return f"<g>{path}{''.join(dots)}</g>"


def _legend(lines: Sequence[Line], colours: Sequence[str]) -> str:
    words = []
    named = [(line.name, colour) for line, colour in zip(lines, colours, strict=True) if line.name]
    for k, (name, colour) in enumerate(named):
        y = TOP + 14 + 17 * k
        words.append(
            f'<text x="{WIDTH - RIGHT - 8:g}" y="{y:g}" text-anchor="end" font-size="{size(name, 12, ACROSS)}">'
            f'<tspan fill="{colour}">■</tspan> {plain(name)}</text>'
        )
    return f'<g class="legend">{"".join(words)}</g>'


def _check(line: Line) -> None:
    if not line.eps or len(line.eps) != len(line.values):
        raise InputError(f"The curve {line.name!r} has {len(line.eps)} radii and {len(line.values)} values: as many.")
    rising = all(low < high for low, high in zip(line.eps, line.eps[1:], strict=False))
    if not rising or line.eps[0] < 0 or not 0 < line.eps[-1] < math.inf:
        raise InputError(f"The radii of {line.name!r} must rise, from 0 on, to one above it, but are {list(line.eps)}.")
    if not all(math.isfinite(end) for value in line.values for end in (value.value, value.low, value.high)):
        raise InputError(f"The curve {line.name!r} holds values that are not finite: it cannot be drawn.")
    if missing := sorted({*line.marked} - {*line.eps}):
        raise InputError(f"Dots at {missing} were asked for, where the curve {line.name!r} has no value.")


def _ticks(largest: float) -> list[float]:
    """Return round numbers from 0 to at most the largest, three to seven of them."""
    size = 10.0 ** math.floor(math.log10(largest / 10))
    step = next(size * factor for factor in (1, 2, 5, 10, 20) if size * factor * 6.5 >= largest)
    return [step * k for k in range(math.floor(largest / step + 1e-9) + 1)]


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
