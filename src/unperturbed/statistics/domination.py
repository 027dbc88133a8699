"""Dominated networks: others are at least as good in clean and robust accuracy, and better in one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from unperturbed.findings import Interval


@dataclass(frozen=True)
class Point:
    """A model, or several that differ in their seed only.

    Attributes:
        name: its name in the picture.
        clean: accuracy without an attack.
        robust: accuracy under attack.
        dominated: whether another point is at least as good in both, and better in one.
    """

    name: str
    clean: Interval
    robust: Interval
    dominated: bool = False


def mark_dominated(points: Sequence[Point]) -> list[Point]:
    """Return the points with the dominated ones marked, by the values, not the intervals."""

    def beats(first: Point, second: Point) -> bool:
        ours, theirs = (first.clean.value, first.robust.value), (second.clean.value, second.robust.value)
        return ours != theirs and ours[0] >= theirs[0] and ours[1] >= theirs[1]

    return [replace(point, dominated=any(beats(rival, point) for rival in points)) for point in points]
