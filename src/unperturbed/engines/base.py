"""The interface of engines, which execute the units of a job and return their results."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

R = TypeVar("R")
Report = Callable[[float, str], None]
"""A callback; it gets the finished work and a short text."""


@dataclass(frozen=True, eq=False)
class Unit(Generic[R]):
    """A unit of work, independent of other units; its result is the same if it is executed twice.

    Attributes:
        number: its index among the units of the job.
        size: its amount of work, in examples.
        work: executes the unit and returns the result; reports the finished share.
        result: the result if a process has stored it, else None.
    """

    number: int
    size: int
    work: Callable[[Report], R]
    result: Callable[[], R | None]


@runtime_checkable
class Engine(Protocol):
    """Executes units: in this process, in several, on a cluster."""

    @property
    def workers(self) -> int:
        """The number of units that are executed at the same time."""

    def map(self, units: Sequence[Unit[R]], report: Report) -> Iterator[tuple[int, R]]:
        """Yield number and result of every unit, in any order; a lost unit is executed again.

        `report` gets the number of finished examples, of the sum of the units' sizes.
        """
