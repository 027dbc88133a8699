"""The one ascent loop, in its two uses: a fixed number of moves (training), and a search over a queue (evaluation)."""

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Inputs, PerExample, Rows, Score

Memory = dict[str, Tensor]
"""What a step rule remembers from move to move: tensors with one entry an example."""


class Maximiser(ABC):
    """Looks for the highest score inside the threat set."""

    @abstractmethod
    def __call__(self, score: Score, x: Inputs, threat: Threat, noise: Noise, start: Inputs | None = None) -> Inputs:
        """Return a point of S(x) for each example, detached; `start` replaces the maximiser's own first point."""


class Ascent(Maximiser):
    """A maximiser that follows the gradient: a start, and a step rule applied `steps` times."""

    steps: int

    @abstractmethod
    def start(self, x: Inputs, threat: Threat, noise: Noise) -> Inputs:
        """Return the first point of each example."""

    @abstractmethod
    def memory(self, x: Inputs) -> Memory:
        """Return what the step rule remembers before its first move."""

    @abstractmethod
    def step(self, x: Inputs, z: Inputs, gradient: Inputs, k: int | Tensor, memory: Memory, threat: Threat) -> Inputs:
        """Return the point after move number `k` (from 0; a tensor broadcasts against z) and update `memory`."""

    def __call__(self, score: Score, x: Inputs, threat: Threat, noise: Noise, start: Inputs | None = None) -> Inputs:
        """Return the point after all the steps: one forward and one input gradient a step, none for the last point."""
        z = self.start(x, threat, noise) if start is None else start
        rows = torch.arange(len(x), device=x.device)
        memory = self.memory(x)
        own = getattr(score, "gradient", None)
        for k in range(self.steps):
            gradient = climb(score, z, rows)[2] if own is None else own(z, rows)
            z = self.step(x, z, gradient, k, memory, threat)
        return z.detach()


def climb(score: Score, z: Inputs, rows: Rows) -> tuple[PerExample, PerExample, Inputs]:
    """Return the score at z, the value that ranks iterates (the score itself unless it brings another), its gradient.

    A score with a method `gradient(z, rows)` of its own is asked for it.
    """
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
    """Bool: whether every score and gradient on the way was finite."""
    restart: Rows
    """The number of restarts that were begun when the search ended."""
    passes: int
    """Examples through the network, forward; as many again backward."""


def search(ascent: Ascent, score: Score, x: Inputs, threat: Threat, noise: Noise, restarts: int, places: int) -> Best:
    """Climb from every example until its rank is above 0 or all restarts are used, keeping the best iterate.

    The network always sees `places` examples. A place that an example leaves goes to the next climb in the queue, and
    stays as padding once the queue is empty; so the result is a function of the example, its noise and `places`, in
    any order and company. A restart is queued behind the examples that still wait for theirs.
    """
    best_z, best_rank = x.clone(), torch.full((len(x),), -torch.inf, device=x.device, dtype=x.dtype)
    finite = torch.ones(len(x), dtype=torch.bool, device=x.device)
    begun = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    queue = deque(range(len(x)))

    row = torch.zeros(places, dtype=torch.int64, device=x.device)
    k = torch.zeros(places, dtype=torch.int64, device=x.device)
    active = torch.zeros(places, dtype=torch.bool, device=x.device)
    here = x[row] if len(x) else x.new_zeros((places, *x.shape[1:]))
    z, memory = here.clone(), ascent.memory(here)
    passes = 0

    def fill_free_places() -> None:
        places_now = (~active).nonzero()[:, 0][: len(queue)]
        if len(places_now) == 0:
            return
        rows_now = torch.tensor([queue.popleft() for _ in places_now], device=x.device)
        # A reduction over a single example may be split between threads and then rounds differently: never one alone.
        pair = rows_now if len(rows_now) > 1 else rows_now.repeat(2)
        start = ascent.start(x[pair], threat, noise.rows(pair).fold(begun[pair]))
        fresh = ascent.memory(x[rows_now])
        row[places_now], k[places_now], active[places_now] = rows_now, 0, True
        here[places_now], z[places_now] = x[rows_now], start[: len(rows_now)]
        for name, values in memory.items():
            values[places_now] = fresh[name]
        begun[rows_now] += 1

    fill_free_places()
    while bool(active.any()):
        value, rank, gradient = climb(score, z, row)
        passes += int(active.sum())
        sound = value.isfinite() & rank.isfinite() & gradient.flatten(1).isfinite().all(dim=1)
        finite[row[active & ~sound]] = False
        better = active & (rank > best_rank[row])
        best_z[row[better]], best_rank[row[better]] = z[better], rank[better]

        broken = rank > 0
        done = active & (broken | ~sound | (k >= ascent.steps))
        again = row[done & ~broken & sound]
        queue.extend(again[begun[again] < restarts].tolist())
        active &= ~done
        z = ascent.step(here, z, gradient, k.view(-1, *[1] * (x.dim() - 1)), memory, threat)
        k += 1
        if bool(done.any()):
            fill_free_places()
    return Best(best_z, best_rank, finite, begun, passes)
