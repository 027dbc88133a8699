"""The one ascent loop, in its two uses: a fixed number of moves (training), and a search over a queue (evaluation)."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, is_dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unperturbed.checks import check_fields
from unperturbed.maximise.climb_queue import ClimbQueue, at_least_two
from unperturbed.maximise.slopes import tells_nothing, usable
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Inputs, PerExample, Rows, Score

Memory = dict[str, Tensor]
"""The state of a step rule between moves: tensors with one entry per example."""


class Maximiser(ABC):
    """Searches for the highest score inside the threat set."""

    def __post_init__(self) -> None:
        """Check the settings of a maximiser that is a dataclass; raises InputError."""
        if is_dataclass(self):
            check_fields(self)

    @abstractmethod
    def __call__(self, score: Score, x: Inputs, threat: Threat, noise: Noise, start: Inputs | None = None) -> Inputs:
        """Return a point of S(x) for each example, detached; `start` replaces the maximiser's own first point."""


class Ascent(Maximiser):
    """A maximiser that follows the gradient: a start, and a step rule applied `steps` times."""

    steps: int
    uses_value: ClassVar[bool] = False
    """Whether `step` looks at the value; if not, only the gradient of a score that defines one is computed."""

    @abstractmethod
    def start(self, x: Inputs, threat: Threat, noise: Noise) -> Inputs:
        """Return the first point of each example."""

    @abstractmethod
    def memory(self, x: Inputs, noise: Noise) -> Memory:
        """Return the state before the first move; a random step rule keeps the keys of the noise in it."""

    @abstractmethod
    def step(
        self,
        x: Inputs,
        z: Inputs,
        value: PerExample,
        gradient: Inputs,
        k: int | Tensor,
        memory: Memory,
        threat: Threat,
    ) -> Inputs:
        """Return the point after move number `k` (from 0; a tensor broadcasts against z) and update `memory`.

        `value` and `gradient` are the score's at z.
        """

    def trial(self, threat: Threat) -> int:
        """Return how many of the first points, the start included, may lie outside S(x) and do not count."""
        return 0

    def __call__(self, score: Score, x: Inputs, threat: Threat, noise: Noise, start: Inputs | None = None) -> Inputs:
        """Return the point after all the steps: one forward and one input gradient a step, none for the last point."""
        z = self.start(x, threat, noise) if start is None else start
        rows = torch.arange(len(x), device=x.device)
        memory = self.memory(x, noise)
        method = None if self.uses_value else getattr(score, "gradient", None)
        unknown = x.new_full((len(x),), torch.nan)
        for k in range(self.steps):
            value, gradient = climb(score, z, rows)[::2] if method is None else (unknown, method(z, rows))
            z = self.step(x, z, value, gradient, k, memory, threat)
        return z.detach()


def climb(score: Score, z: Inputs, rows: Rows) -> tuple[PerExample, PerExample, Inputs]:
    """Return the score at z, the value that ranks iterates (the score, unless it returns a second), and the gradient.

    If the score has a method `gradient(z, rows)`, that gives the gradient. Entries that are not finite are replaced by
    `usable`.
    """
    value, rank, gradient = _climb(score, z, rows)
    return value, rank, usable(gradient)


def _climb(score: Score, z: Inputs, rows: Rows) -> tuple[PerExample, PerExample, Inputs]:
    """Return the results of `climb`, with the gradient as it is."""
    method = getattr(score, "gradient", None)
    z = z.detach().requires_grad_(method is None)
    with torch.set_grad_enabled(method is None):
        values = score(z, rows)
        value, rank = values if isinstance(values, tuple) else (values, values)
        gradient = method(z, rows) if method is not None else torch.autograd.grad(value.sum(), z)[0]
    return value.detach(), rank.detach(), gradient


@dataclass(frozen=True, eq=False)
class Best:
    """The result of a search for each example: the iterate of highest rank, and the counts of the search."""

    z: Inputs
    rank: PerExample
    """Of that iterate; -inf where no iterate could be evaluated."""
    finite: Tensor
    """Bool: whether every score was finite and at least one gradient informative."""
    restart: Rows
    """The climbs up to the one that ended the search, or all of them."""
    passes: int
    """Examples through the network, forward; as many again backward."""
    queries: Rows
    """The passes for each example up to its break, as if its climbs had run one after the other."""


def search(
    ascent: Ascent,
    score: Score,
    x: Inputs,
    threat: Threat,
    noise: Noise,
    restarts: int,
    batch_size: int,
    enough: float = 0.0,
) -> Best:
    """Climb from every example until its rank is above `enough` or all restarts are used, keeping the best iterate.

    The network sees `batch_size` examples at a time: the next climb of the queue (first climbs of all examples, then
    their restarts) takes a slot that becomes free, and when the queue is empty, the batch shrinks. Until then the
    result depends on the example, its noise and `batch_size` alone, in any order and next to any other examples; after
    that it can differ by float rounding, which depends on the size of a batch.

    If the score has a method `of_climb(numbers, moves)`, that gives the score for the climbs of these numbers after so
    many moves, one a slot.
    """
    best_z, best_rank = x.clone(), torch.full((len(x),), -torch.inf, device=x.device, dtype=x.dtype)
    climbs = torch.zeros(len(x), dtype=torch.int64, device=x.device)  # the climb that the best iterate is from
    finite = torch.ones(len(x), dtype=torch.bool, device=x.device)
    led = torch.zeros_like(finite)  # examples with an informative gradient
    queue = ClimbQueue(len(x), batch_size, restarts, x.device, ascent.steps + 1)
    k = torch.zeros_like(queue.row)
    origin = x[queue.row] if len(x) else x.new_zeros((len(k), *x.shape[1:]))
    z, memory = origin.clone(), ascent.memory(origin, Noise(queue.row))
    of_climb, trial, passes = getattr(score, "of_climb", None), ascent.trial(threat), 0

    def fill_free_places() -> None:
        seats, rows = queue.fill()
        if len(seats) == 0:
            return
        pair = at_least_two(rows)
        own = noise.rows(pair).fold(at_least_two(queue.number[seats]))
        start = ascent.start(x[pair], threat, own)
        fresh = ascent.memory(x[pair], own)
        k[seats], origin[seats], z[seats] = 0, x[rows], start[: len(rows)]
        for name, values in memory.items():
            values[seats] = fresh[name][: len(rows)]

    def give_up_places() -> None:
        nonlocal k, origin, z
        kept = queue.shrink()
        if kept is not None:
            k, origin, z = k[kept], origin[kept], z[kept]
            memory.update({name: values[kept] for name, values in memory.items()})

    fill_free_places()
    while queue.busy():
        row = queue.row
        value, rank, gradient = _climb(score if of_climb is None else of_climb(queue.number, k), z, row)
        passes += int(queue.active.sum())
        sound = value.isfinite() & rank.isfinite()
        led[row[queue.active & ~tells_nothing(gradient)]] = True
        gradient = usable(gradient)
        finite[row[queue.active & ~sound]] = False
        # an infinite rank would hide a break
        counted = torch.where((k >= trial) & (rank < torch.inf), rank, -torch.inf)
        better = queue.best(counted, best_rank, climbs, enough)
        best_z[row[better]], best_rank[row[better]] = z[better], rank[better]
        climbs[row[better]] = queue.number[better]

        broken = counted > enough
        finished = queue.active & (broken | ~sound | (k >= ascent.steps))
        queue.leave(finished, broken | ~sound)
        number = k.view(-1, *[1] * (x.dim() - 1))
        z = ascent.step(origin, z, value, gradient, number, memory, threat)
        k += 1
        if bool(finished.any()):
            fill_free_places()
            give_up_places()
    return Best(best_z, best_rank, finite & led, queue.needed, passes, queue.moved)
