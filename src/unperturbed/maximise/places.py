"""Which climb is where in the batch that the network sees."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from unperturbed.types import Rows

STEP = 8
"""Fewer places than were asked for are a multiple of this: few sizes, and none of them too small."""


PAUSE = 0.5
"""Seconds between two words on how far a search is: each waits for the device."""
Watch = Callable[[float, int], None]
"""Called with the share of a search that is done, and the number of examples that need no further climb."""
_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


class _Left(BaseException):
    """Carries a progress callback's exception past the search's error handling."""


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Have the searches inside say, now and then, how far they are; one that begins anew does not go back."""
    furthest = 0.0

    def rising(share: float, over: int) -> None:
        nonlocal furthest
        furthest = max(furthest, share)
        try:
            watch(furthest, over)
        except Exception as error:
            raise _Left from error

    try:
        with _watching(rising):
            yield
    except _Left as left:
        assert left.__cause__ is not None
        raise left.__cause__ from None


@contextmanager
def part_of_search(low: float, high: float, over: int = 0) -> Iterator[None]:
    """Report progress in this block as `low` to `high` of the enclosing search, which some examples have left."""
    whole = _watch.get()
    if whole is None:
        yield
        return
    with _watching(lambda share, more: whole(low + share * (high - low), over + more)):
        yield


@contextmanager
def _watching(watch: Watch) -> Iterator[None]:
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)


class Places:
    """A queue of climbs before a number of places; a place that a climb leaves goes to the next one in the queue.

    First in the queue are the first climbs of all examples, then all second ones, and so on. Those of an example need
    not wait for each other: at the end, when fewer examples than places are left, an example may be in several places.
    What comes out is as if they had waited: what counts is the first climb that ends an example, by its number, and
    later ones are given up then. (Only where a value was not finite, what later climbs met until then is kept, too: it
    may be a break.) Once the queue is empty, places that are left stay as padding until `shrink` can give up an eighth
    of them.
    """

    def __init__(self, n: int, places: int, climbs: int, device: torch.device, moves: int = 1) -> None:
        """Queue up `n` examples with at most `climbs` climbs each, of about so many moves, before empty places.

        Of the places, no more are taken than all the climbs together can fill.
        """
        places = enough_places(n * climbs, places)
        self.row: Rows = torch.zeros(places, dtype=torch.int64, device=device)
        """The example in each place."""
        self.number: Rows = torch.zeros_like(self.row)
        """The number of each place's climb among those of its example, from 0."""
        self.active: Tensor = torch.zeros(places, dtype=torch.bool, device=device)
        """Whether it is still climbing."""
        self.needed: Rows = torch.full((n,), climbs, dtype=torch.int64, device=device)
        """The climbs of each example up to the one that made later ones needless; all, where none did."""
        self.moved: Rows = torch.full((n,), climbs * moves, dtype=torch.int64, device=device)
        """The moves in these, as if the climbs had waited for each other."""
        self._n, self._begun = n, 0  # how far the queue has come: climbs begun, or needless by then
        self._over = set[int]()  # examples that need no other climb
        self._climbs, self._first = climbs, self.needed.clone()  # the first climb of each example that broke it
        self._watch, self._next = _watch.get(), time.monotonic() + PAUSE
        self._moves, self._made = moves, torch.zeros_like(self.row)
        self._spent = torch.zeros((), dtype=torch.int64, device=device)

    def busy(self) -> bool:
        """Return, before each move, whether a climb is unfinished, and report progress."""
        self._made += 1
        if self._watch is not None:
            self._spent = self._spent + self.active.sum()
            if time.monotonic() >= self._next:
                self._watch(*self._far())
                self._next = time.monotonic() + PAUSE
        return bool(self.active.any())

    def _far(self) -> tuple[float, int]:
        """Return the share done of what would be left if no example ended early, and for how many it is over."""
        number, row = divmod(self._begun, max(self._n, 1))
        further = max(self._climbs - number - 1, 0) * (self._n - len(self._over))
        waiting = further + (number < self._climbs) * sum(each not in self._over for each in range(row, self._n))
        under_way = int((self._moves - self._made).clamp(min=0)[self.active].sum())
        spent = int(self._spent)
        return spent / max(spent + under_way + self._moves * waiting, 1), len(self._over)

    def fill(self) -> tuple[Rows, Rows]:
        """Seat the next climbs; return their places and their examples.

        What is computed for a single example may be reduced in another order than in a batch: see `at_least_two`.
        """
        free = (~self.active).nonzero()[:, 0]
        climbs = list[tuple[int, int]]()
        while len(climbs) < len(free) and self._is_waiting():
            climbs.append(divmod(self._begun, self._n))
            self._begun += 1
        seats, climbing = free[: len(climbs)], torch.tensor(climbs, dtype=torch.int64, device=free.device).view(-1, 2)
        self.number[seats], self.row[seats] = climbing.T
        self.active[seats], self._made[seats] = True, 0
        return seats, self.row[seats]

    def _is_waiting(self) -> bool:
        last = self._n * self._climbs
        while self._begun < last and self._begun % self._n in self._over:
            self._begun += 1
        return self._begun < last

    def best(self, values: Tensor, so_far: Tensor, by: Rows, enough: float) -> Tensor:
        """Return the places whose value is above what their example has so far, one place an example.

        A value above `enough` replaces the results of later climbs of the example, and is beaten by its own climb's
        alone. Of several values, the highest counts, and where they tie (as in low precision) that of the first climb:
        `by` has the numbers of the climbs that what is so far is from.
        """
        broken = self.active & (values > enough)
        first = self._first.scatter_reduce(0, self.row[broken], self.number[broken], "amin")
        earlier, self._first = (first < self._first)[self.row], first
        own = self.number == first[self.row]
        standing = first[self.row] == self._climbs
        before = so_far[self.row]
        higher = (values > before) | ((values == before) & values.isfinite() & (self.number < by[self.row]))
        seats = (self.active & ((own & earlier) | ((own | standing) & higher))).nonzero()[:, 0]
        if self._climbs == 1 or len(seats) < 2:
            return seats
        seats = seats[self.number[seats].argsort(descending=True)]
        seats = seats[values[seats].argsort(stable=True)]
        highest = dict(zip(self.row[seats].tolist(), seats.tolist(), strict=True))  # of one example the last one
        return torch.tensor(list(highest.values()), device=seats.device)

    def shrink(self) -> Rows | None:
        """Give up places that nobody will take, if they are an eighth or more; return those that are kept, or None.

        All tensors with an entry per place must be cut alike.
        """
        now = len(self.active)
        fewer = enough_places(int(self.active.sum()), now)
        if self._is_waiting() or 8 * fewer > 7 * now:
            return None
        kept = (~self.active).to(torch.int8).sort(stable=True).indices[:fewer]
        self.row, self.number = self.row[kept], self.number[kept]
        self.active, self._made = self.active[kept], self._made[kept]
        return kept

    def leave(self, done: Tensor, over: Tensor) -> None:
        """End the climbs in the places `done`; those that are also `over` make later climbs of the example needless."""
        last = (done & over).nonzero()[:, 0]
        self.active &= ~done
        if len(last) > 0:
            self._over.update(self.row[last].tolist())
            self.needed.scatter_reduce_(0, self.row[last], self.number[last] + 1, "amin")
            moved = self.number[last] * self._moves + self._made[last]
            self.moved.scatter_reduce_(0, self.row[last], moved, "amin")
            self.active &= self.number < self.needed[self.row]


def enough_places(n: int, places: int) -> int:
    """Return how many of the places the network needs to see for n examples."""
    return min(places, max(-(-n // STEP), 1) * STEP)


def at_least_two(rows: Tensor) -> Tensor:
    """Return the rows, a single one twice.

    A reduction over a single example may be split between threads and then rounds differently: never one alone.
    """
    return rows if len(rows) != 1 else rows.repeat(2)
