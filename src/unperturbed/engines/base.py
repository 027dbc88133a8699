"""What an engine is: it executes the units of a job and returns their results."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

R = TypeVar("R")
Report = Callable[[float, str], None]
"""Called with how much is done, and a few words."""


@dataclass(frozen=True, eq=False)
class Unit(Generic[R]):
    """A piece of work that depends on no other piece and may be executed twice with the same result.

    Attributes:
        number: its place among the units of the job.
        size: how much work it is, in examples.
        work: does it and returns the result; reports the share that is done.
        result: the result where any process has stored it, else None.
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
        """How many units are executed at the same time."""

    def map(self, units: Sequence[Unit[R]], report: Report) -> Iterator[tuple[int, R]]:
        """Yield number and result of every unit, in any order; a unit that was lost is given out again.

        `report` is called with the examples that are done, of the sum of the units' sizes.
        """
