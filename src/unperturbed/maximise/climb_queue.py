"""A queue of climbs that share the slots of a batch, and the progress that searches report."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from unperturbed.types import Rows

STEP = 8
"""A batch smaller than requested has a multiple of this many slots: few sizes, and none of them too small."""


PAUSE = 0.5
"""Seconds between two progress reports: a report waits for the device."""
Watch = Callable[[float, int], None]
"""A callback; it gets the finished share of a search and the number of examples that need no further climb."""
_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


class _CallbackError(BaseException):
    """Carries a progress callback's exception past the search's error handling."""


@contextmanager
def watched(watch: Watch) -> Iterator[None]:
    """Report the progress of the searches in this block; the share never falls, also where a search is repeated."""
    furthest = 0.0

    def rising(share: float, over: int) -> None:
        nonlocal furthest
        furthest = max(furthest, share)
        try:
            watch(furthest, over)
        except Exception as error:
            raise _CallbackError from error

    try:
        with _watching(rising):
            yield
    except _CallbackError as left:
        assert left.__cause__ is not None
        raise left.__cause__ from None


@contextmanager
def part_of_search(low: float, high: float, over: int = 0) -> Iterator[None]:
    """Report progress in this block as `low` to `high` of the enclosing search, which some examples have left."""
    watch = _watch.get()
    if watch is None:
        yield
        return
    with _watching(lambda share, further: watch(low + share * (high - low), over + further)):
        yield


@contextmanager
def _watching(watch: Watch) -> Iterator[None]:
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)


class ClimbQueue:
    """A queue of climbs for the slots of a batch; the next climb of the queue takes a slot that becomes free.

    The queue holds the first climbs of all examples, then all second climbs, and so on. Climbs of one example may run
    at the same time: when fewer examples than slots remain, an example may occupy several slots. The result is the same
    as if the climbs had run one after the other: the climb of lowest number that ends an example counts, and its later
    climbs stop. (If it ended because a value was not finite, the points that later climbs met until then are kept, too:
    one may be a break.) Once the queue is empty, free slots stay as padding until `shrink` can drop an eighth of them.
    """

    def __init__(self, n: int, slots: int, climbs: int, device: torch.device, moves: int = 1) -> None:
        """Queue up to `climbs` climbs for each of `n` examples, of about `moves` moves each; all slots are free.

        The batch has no more slots than all the climbs together can fill.
        """
        slots = slots_needed(n * climbs, slots)
        self.row: Rows = torch.zeros(slots, dtype=torch.int64, device=device)
        """The example in each slot."""
        self.number: Rows = torch.zeros_like(self.row)
        """The number of the slot's climb among those of its example, from 0."""
        self.active: Tensor = torch.zeros(slots, dtype=torch.bool, device=device)
        """Whether the slot's climb is unfinished."""
        self.needed: Rows = torch.full((n,), climbs, dtype=torch.int64, device=device)
        """The climbs of each example up to the one that ended it, or all of them."""
        self.moved: Rows = torch.full((n,), climbs * moves, dtype=torch.int64, device=device)
        """The moves in these climbs, as if they had run one after the other."""
        self._n, self._begun = n, 0  # the position in the queue: climbs that have begun, or are no longer needed
        self._over = set[int]()  # examples that need no other climb
        self._climbs, self._first = climbs, self.needed.clone()  # the first climb of each example that broke it
        self._watch, self._next = _watch.get(), time.monotonic() + PAUSE
        self._moves, self._made = moves, torch.zeros_like(self.row)
        self._spent = torch.zeros((), dtype=torch.int64, device=device)

    def busy(self) -> bool:
        """Tell whether a climb is unfinished, and report progress; called before every move."""
        self._made += 1
        if self._watch is not None:
            self._spent = self._spent + self.active.sum()
            if time.monotonic() >= self._next:
                self._watch(*self._far())
                self._next = time.monotonic() + PAUSE
        return bool(self.active.any())

    def _far(self) -> tuple[float, int]:
        """Return the finished share of the moves, if no further example ends early, and the number of ended
        examples."""
        number, row = divmod(self._begun, max(self._n, 1))
        further = max(self._climbs - number - 1, 0) * (self._n - len(self._over))
        waiting = further + (number < self._climbs) * sum(example not in self._over for example in range(row, self._n))
        under_way = int((self._moves - self._made).clamp(min=0)[self.active].sum())
        spent = int(self._spent)
        return spent / max(spent + under_way + self._moves * waiting, 1), len(self._over)

    def fill(self) -> tuple[Rows, Rows]:
        """Give the free slots to the next climbs; return these slots and their examples.

        A computation for a single example may sum in another order than in a batch: see `at_least_two`.
        """
        free = (~self.active).nonzero()[:, 0]
        climbs = list[tuple[int, int]]()
        while len(climbs) < len(free) and self._is_waiting():
            climbs.append(divmod(self._begun, self._n))
            self._begun += 1
        slots, climbing = free[: len(climbs)], torch.tensor(climbs, dtype=torch.int64, device=free.device).view(-1, 2)
        self.number[slots], self.row[slots] = climbing.T
        self.active[slots], self._made[slots] = True, 0
        return slots, self.row[slots]

    def _is_waiting(self) -> bool:
        last = self._n * self._climbs
        while self._begun < last and self._begun % self._n in self._over:
            self._begun += 1
        return self._begun < last

    def best(self, values: Tensor, so_far: Tensor, climbs: Rows, enough: float) -> Tensor:
        """Return the slots whose value beats the value so far of their example, at most one slot an example.

        A value above `enough` replaces the results of later climbs of the example, and only its own climb can beat it.
        Of several values, the highest counts, and of equal ones (as in low precision) that of the first climb: `climbs`
        has the numbers of the climbs that reached the values so far.
        """
        broken = self.active & (values > enough)
        first = self._first.scatter_reduce(0, self.row[broken], self.number[broken], "amin")
        earlier, self._first = (first < self._first)[self.row], first
        of_breaking_climb = self.number == first[self.row]
        standing = first[self.row] == self._climbs
        before = so_far[self.row]
        higher = (values > before) | ((values == before) & values.isfinite() & (self.number < climbs[self.row]))
        slots = (self.active & ((of_breaking_climb & earlier) | ((of_breaking_climb | standing) & higher))).nonzero()[
            :, 0
        ]
        if self._climbs == 1 or len(slots) < 2:
            return slots
        slots = slots[self.number[slots].argsort(descending=True)]
        slots = slots[values[slots].argsort(stable=True)]
        highest = dict(zip(self.row[slots].tolist(), slots.tolist(), strict=True))  # the last entry of an example stays
        return torch.tensor(list(highest.values()), device=slots.device)

    def shrink(self) -> Rows | None:
        """Drop the slots that no climb will take, if they are an eighth or more; return the remaining slots, or None.

        The caller must index all tensors with one entry per slot by the result.
        """
        size = len(self.active)
        needed = slots_needed(int(self.active.sum()), size)
        if self._is_waiting() or 8 * needed > 7 * size:
            return None
        slots = (~self.active).to(torch.int8).sort(stable=True).indices[:needed]
        self.row, self.number = self.row[slots], self.number[slots]
        self.active, self._made = self.active[slots], self._made[slots]
        return slots

    def leave(self, finished: Tensor, over: Tensor) -> None:
        """End the climbs in the slots `finished`; where they are also `over`, the example needs no later climb."""
        last = (finished & over).nonzero()[:, 0]
        self.active &= ~finished
        if len(last) > 0:
            self._over.update(self.row[last].tolist())
            self.needed.scatter_reduce_(0, self.row[last], self.number[last] + 1, "amin")
            moved = self.number[last] * self._moves + self._made[last]
            self.moved.scatter_reduce_(0, self.row[last], moved, "amin")
            self.active &= self.number < self.needed[self.row]


def slots_needed(n: int, slots: int) -> int:
    """Return the batch size for n examples: `slots`, or fewer, as a multiple of `STEP`."""
    return min(slots, max(-(-n // STEP), 1) * STEP)


def at_least_two(rows: Tensor) -> Tensor:
    """Return the rows; a single row twice.

    Torch may split a sum over a single example between threads, which rounds differently from sums over a batch.
    """
    return rows if len(rows) != 1 else rows.repeat(2)
