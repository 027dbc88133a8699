"""The interface of engines, which execute the units of a job and return their results."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import torch

R = TypeVar("R")
Report = Callable[[float, str], None]
"""A callback; it gets the finished work and a short text."""
Keep = Callable[[Any], None]
"""A callback; it gets the state of a unit between two steps."""


def _nothing() -> None:
    """Return None: no state, and no result, is stored."""


def _forget(state: Any) -> None:
    """Store no state."""


def _unchanged(result: R) -> R:
    """Return a result that is not stored."""
    return result


@dataclass(frozen=True, eq=False)
class Unit(Generic[R]):
    """A unit of work, independent of other units; its result is the same if it is executed twice.

    Attributes:
        number: its index among the units of the job.
        size: its amount of work, in examples.
        compute: executes the unit from a state (None: from the beginning), hands over the state between two steps,
            reports the finished share, and returns the result. It can run in another process, on another machine.
        result: the result if a process has stored it, else None.
        begun: the stored state of an interrupted call, or None.
        keep: stores the state between two steps.
        finish: stores the result, and returns it.
    """

    number: int
    size: int
    compute: Callable[[Any, Keep, Report], R]
    result: Callable[[], R | None] = _nothing
    begun: Callable[[], Any] = _nothing
    keep: Keep = _forget
    finish: Callable[[R], R] = _unchanged

    def work(self, report: Report) -> R:
        """Execute the unit in this process, store its result, and return it."""
        return self.finish(self.compute(self.begun(), self.keep, report))


@runtime_checkable
class Engine(Protocol):
    """Executes units: in this process, in several, on a cluster.

    An engine whose workers do not have the threads of this process has an attribute `threads`.
    """

    @property
    def workers(self) -> int:
        """The number of units that are executed at the same time."""

    def map(self, units: Sequence[Unit[R]], report: Report) -> Iterator[tuple[int, R]]:
        """Yield number and result of every unit, in any order; a lost unit is executed again.

        `report` gets the number of finished examples, of the sum of the units' sizes.
        """


def threads_of(engine: Engine) -> int:
    """Return the number of torch's threads in a worker of the engine."""
    return int(getattr(engine, "threads", torch.get_num_threads()))
