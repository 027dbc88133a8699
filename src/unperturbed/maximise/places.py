"""Which climb is where in the batch that the network sees."""

from collections import deque

import torch
from torch import Tensor

from unperturbed.types import Rows

STEP = 8
"""Fewer places than were asked for are a multiple of this: few sizes, and none of them too small."""


class Places:
    """A queue of climbs before a number of places; a place that a climb leaves goes to the next one in the queue.

    A further climb of an example queues up behind the examples that still wait for their first. Once the queue is
    empty, places that are left stay as padding until `shrink` can give up a quarter of them.
    """

    def __init__(self, n: int, places: int, climbs: int, device: torch.device) -> None:
        """Queue up `n` examples with at most `climbs` climbs each before empty places."""
        self.climbs = climbs
        self.row: Rows = torch.zeros(places, dtype=torch.int64, device=device)
        """The example in each place."""
        self.active: Tensor = torch.zeros(places, dtype=torch.bool, device=device)
        """Whether it is still climbing."""
        self.begun: Rows = torch.zeros(n, dtype=torch.int64, device=device)
        """Climbs that each example has begun."""
        self._queue = deque(range(n))

    @property
    def number(self) -> Rows:
        """The number of each place's climb among those of its example, from 0."""
        return (self.begun[self.row] - 1).clamp_(min=0)

    def fill(self) -> tuple[Rows, Rows]:
        """Seat the next climbs; return their places and their examples.

        What is computed for a single example may be reduced in another order than in company: see `at_least_two`.
        """
        seats = (~self.active).nonzero()[:, 0][: len(self._queue)]
        rows = torch.tensor([self._queue.popleft() for _ in seats], dtype=torch.int64, device=seats.device)
        self.row[seats], self.active[seats] = rows, True
        self.begun[rows] += 1
        return seats, rows

    def shrink(self) -> Rows | None:
        """Give up places that nobody will take, if they are a quarter or more; return those that are kept, or None.

        Whatever is kept for each place must be cut down alike.
        """
        now = len(self.active)
        fewer = enough_places(int(self.active.sum()), now)
        if self._queue or 4 * fewer > 3 * now:
            return None
        kept = (~self.active).to(torch.int8).sort(stable=True).indices[:fewer]
        self.row, self.active = self.row[kept], self.active[kept]
        return kept

    def leave(self, done: Tensor, over: Tensor) -> None:
        """End the climbs in the places `done`; the examples of those that are also `over` need no other."""
        again = self.row[done & ~over]
        self._queue.extend(again[self.begun[again] < self.climbs].tolist())
        self.active &= ~done


def enough_places(n: int, places: int) -> int:
    """Return how many of the places the network needs to see for n examples."""
    return min(places, max(-(-n // STEP), 1) * STEP)


def at_least_two(rows: Tensor) -> Tensor:
    """Return the rows, a single one twice.

    A reduction over a single example may be split between threads and then rounds differently: never one alone.
    """
    return rows if len(rows) != 1 else rows.repeat(2)
