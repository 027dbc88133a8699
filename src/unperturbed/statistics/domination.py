"""Which networks another one beats in clean and robust accuracy at once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from unperturbed.findings import Interval


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
    """Return the points with the dominated ones marked: by the values alone, not by their intervals."""

    def beats(one: Point, other: Point) -> bool:
        ours, theirs = (one.clean.value, one.robust.value), (other.clean.value, other.robust.value)
        return ours != theirs and ours[0] >= theirs[0] and ours[1] >= theirs[1]

    return [replace(point, dominated=any(beats(other, point) for other in points)) for point in points]
