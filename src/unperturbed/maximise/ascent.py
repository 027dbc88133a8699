"""The one ascent loop, in its two uses: a fixed number of moves (training), and a search over a queue (evaluation)."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, is_dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unperturbed.checks import check_fields
from unperturbed.maximise.places import Places, at_least_two
from unperturbed.maximise.slopes import tells_nothing, usable
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Inputs, PerExample, Rows, Score

Memory = dict[str, Tensor]
"""What a step rule remembers from move to move: tensors with one entry an example."""


class Maximiser(ABC):
    """Looks for the highest score inside the threat set."""

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
        """Return what the step rule remembers before its first move; a random one keeps the keys of the noise."""

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
        own = None if self.uses_value else getattr(score, "gradient", None)
        unknown = x.new_full((len(x),), torch.nan)
        for k in range(self.steps):
            value, gradient = climb(score, z, rows)[::2] if own is None else (unknown, own(z, rows))
            z = self.step(x, z, value, gradient, k, memory, threat)
        return z.detach()


def climb(score: Score, z: Inputs, rows: Rows) -> tuple[PerExample, PerExample, Inputs]:
    """Return the score at z, the value that ranks iterates (the score itself unless it brings another), its gradient.

    A score's own method `gradient(z, rows)` is used if it has one. Where the gradient is not finite, it is what
    `usable` makes of it.
    """
    value, rank, gradient = _climb(score, z, rows)
    return value, rank, usable(gradient)


def _climb(score: Score, z: Inputs, rows: Rows) -> tuple[PerExample, PerExample, Inputs]:
    """Return what `climb` does, with the gradient as it is."""
    own = getattr(score, "gradient", None)
    z = z.detach().requires_grad_(own is None)
    with torch.set_grad_enabled(own is None):
        values = score(z, rows)
        value, rank = values if isinstance(values, tuple) else (values, values)
        gradient = own(z, rows) if own is not None else torch.autograd.grad(value.sum(), z)[0]
    return value.detach(), rank.detach(), gradient


@dataclass(frozen=True, eq=False)
class Best:
    """What a search found for each example: the iterate of highest rank, and how the search went."""

    z: Inputs
    rank: PerExample
    """Of that iterate; -inf where none could be evaluated."""
    finite: Tensor
    """Bool: whether every score on the way was finite, and some gradient was informative."""
    restart: Rows
    """The climbs up to the one that ended the search; all, where none did."""
    passes: int
    """Examples through the network, forward; as many again backward."""
    queries: Rows
    """Of these, for each example, those up to the break that ended the search, as if its climbs had waited in line."""


def search(
    ascent: Ascent,
    score: Score,
    x: Inputs,
    threat: Threat,
    noise: Noise,
    restarts: int,
    places: int,
    enough: float = 0.0,
) -> Best:
    """Climb from every example until its rank is above `enough` or all restarts are used, keeping the best iterate.

    The network sees `places` examples; a place that an example leaves goes to the next climb in the queue, and places
    that nobody waits for are given up. Until then the result is a function of the example, its noise and
    `places`, in any order and company; after that, up to float rounding, which differs with the size of a batch. A
    restart is queued behind the examples that still wait for theirs.

    A score with a method `of_climb(numbers, moves)` is asked for the score of these climbs after so many moves, one
    number a place.
    """
    best_z, best_rank = x.clone(), torch.full((len(x),), -torch.inf, device=x.device, dtype=x.dtype)
    by = torch.zeros(len(x), dtype=torch.int64, device=x.device)  # the climb that the best iterate is from
    finite = torch.ones(len(x), dtype=torch.bool, device=x.device)
    led = torch.zeros_like(finite)  # by an informative gradient
    at = Places(len(x), places, restarts, x.device, ascent.steps + 1)
    k = torch.zeros_like(at.row)
    here = x[at.row] if len(x) else x.new_zeros((len(k), *x.shape[1:]))
    z, memory = here.clone(), ascent.memory(here, Noise(at.row))
    of_climb, trial, passes = getattr(score, "of_climb", None), ascent.trial(threat), 0

    def fill_free_places() -> None:
        seats, rows = at.fill()
        if len(seats) == 0:
            return
        pair = at_least_two(rows)
        own = noise.rows(pair).fold(at_least_two(at.number[seats]))
        start = ascent.start(x[pair], threat, own)
        fresh = ascent.memory(x[pair], own)
        k[seats], here[seats], z[seats] = 0, x[rows], start[: len(rows)]
        for name, values in memory.items():
            values[seats] = fresh[name][: len(rows)]

    def give_up_places() -> None:
        nonlocal k, here, z
        kept = at.shrink()
        if kept is not None:
            k, here, z = k[kept], here[kept], z[kept]
            memory.update({name: values[kept] for name, values in memory.items()})

    fill_free_places()
    while at.busy():
        row = at.row
        value, rank, gradient = _climb(score if of_climb is None else of_climb(at.number, k), z, row)
        passes += int(at.active.sum())
        sound = value.isfinite() & rank.isfinite()
        led[row[at.active & ~tells_nothing(gradient)]] = True
        gradient = usable(gradient)
        finite[row[at.active & ~sound]] = False
        counted = torch.where((k >= trial) & (rank < torch.inf), rank, -torch.inf)  # infinity would hide a break
        better = at.best(counted, best_rank, by, enough)
        best_z[row[better]], best_rank[row[better]] = z[better], rank[better]
        by[row[better]] = at.number[better]

        broken = counted > enough
        done = at.active & (broken | ~sound | (k >= ascent.steps))
        at.leave(done, broken | ~sound)
        number = k.view(-1, *[1] * (x.dim() - 1))
        z = ascent.step(here, z, value, gradient, number, memory, threat)
        k += 1
        if bool(done.any()):
            fill_free_places()
            give_up_places()
    return Best(best_z, best_rank, finite & led, at.needed, passes, at.moved)
