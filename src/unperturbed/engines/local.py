"""The engine of a single process: one unit after the other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from unperturbed.checks import COUNT, check_fields
from unperturbed.engines.base import R, Report, Unit


@dataclass(frozen=True)
class Local:
    """Executes the units in this process, in their order.

    Attributes:
        workers: examples are divided into blocks as for so many workers, so that the bits of the results are theirs.
    """

    name: ClassVar[str] = "local"
    workers: int = 1

    def __post_init__(self) -> None:
        """Refuse a number of workers below 1."""
        check_fields(self, workers=COUNT)

    def map(self, units: Sequence[Unit[R]], report: Report) -> Iterator[tuple[int, R]]:
        """Yield number and result of every unit."""
        finished = 0
        for unit in units:

            def within(share: float, text: str, before: int = finished, size: int = unit.size) -> None:
                report(before + share * size, text)

            yield unit.number, unit.work(within)
            finished += unit.size
