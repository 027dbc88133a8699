"""Sigma-zero: misclassified points that differ from the example in few features."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unperturbed.attacks.base import Attack, AttackResult, Nearest
from unperturbed.checks import AT_LEAST_ONE, POSITIVE, check_fields
from unperturbed.losses import margin
from unperturbed.maximise.climb_queue import ClimbQueue
from unperturbed.maximise.slopes import tells_nothing, usable
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.threat.geometry import at_least_something, peak
from unperturbed.types import Batch, Inputs, Model, Norm, PerExample

_DECAY, _SQUARES, _TINY = 0.9, 0.999, 1e-8
"""Of Adam (Kingma & Ba 2015, https://arxiv.org/abs/1412.6980)."""


@dataclass(frozen=True)
class SigmaZero(Attack):
    """Adam on max(f_y - max_{j != y} f_j, 0) + mean_i d_i^2 / (d_i^2 + sigma), small d_i set to 0 (Cinà et al. 2024).

    https://arxiv.org/abs/2402.01879, algorithm 1. The second term is a smooth count of the features that change; the
    gradient is divided by its largest entry. After every step features that changed by less than a threshold are set
    back, and the threshold rises where the point is misclassified and falls where it is not. d is in units of the box.
    There are no random numbers in it, and no restarts.

    Called as an attack, it leaves an example as soon as a misclassified point lies inside the threat set; `nearest`
    continues to the fewest features.

    Attributes:
        label: name of the attack in tables.
        steps: moves, each a forward and an input gradient.
        sigma: of the smooth count.
        rate: of the first step, in units of the box; the rate falls to a tenth by a cosine.
        threshold: below which a feature is set back, at first.
        change: of the threshold in a step, in units of the rate.
    """

    name: ClassVar[str] = "sigma-zero"
    needs_gradient: ClassVar[bool | None] = True
    needs_radius: ClassVar[bool] = False
    label: str = "Sigma-zero"
    steps: int = 1000
    sigma: float = 1e-3
    rate: float = 1.0
    threshold: float = 0.3
    change: float = 0.01
    restarts: int = 1

    def __post_init__(self) -> None:
        """Refuse numbers that leave nothing to do."""
        check_fields(self, steps=AT_LEAST_ONE, sigma=POSITIVE, rate=POSITIVE, restarts=AT_LEAST_ONE)

    def supports(self, norm: Norm) -> bool:
        """Tell whether the norm is L0."""
        return norm == "L0"

    def __call__(self, model: Model, batch: Batch, threat: Threat, noise: Noise, batch_size: int) -> AttackResult:
        """Look for a misclassified point inside the threat set."""
        return self._run(model, batch, threat, batch_size, leave=True).found

    def nearest(self, model: Model, batch: Batch, threat: Threat, noise: Noise, batch_size: int) -> Nearest:
        """Look for the misclassified point with the fewest changed features."""
        return self._run(model, batch, threat, batch_size, leave=False)

    def _run(self, model: Model, batch: Batch, threat: Threat, batch_size: int, leave: bool) -> Nearest:
        record = _Record(batch.x, threat)
        queue = ClimbQueue(len(batch.x), batch_size, 1, batch.x.device, self.steps + 1)
        slots = _Slots.empty(batch.x, len(queue.row))
        low, high = threat.finite_limits(batch.x)
        forwards = 0

        def fill_free_slots() -> None:
            nonlocal slots
            seats, rows = queue.fill()
            slots.begin(seats, batch.x[rows], self.threshold)
            remaining = queue.shrink()
            if remaining is not None:
                slots = slots.rows(remaining)

        fill_free_slots()
        while queue.busy():
            z = threat.boxed(slots.x + (high - low) * slots.moved)
            margins, slope = _margin_and_gradient(model, z, batch.y[queue.row])
            forwards += int(queue.active.sum())
            record.informative[queue.row[queue.active & ~tells_nothing(slope)]] = True
            sound, broken = record.look(queue, z, margins), record.inside_margin[queue.row] > 0
            finished = queue.active & ((broken & leave) | ~sound | (slots.k >= self.steps))
            queue.leave(finished, (broken & leave) | ~sound)
            slope = threat.fixed(torch.zeros_like(slope), usable(slope))
            self._step(slots, margins, slope * (high - low), (low, high))
            if bool(finished.any()):
                fill_free_slots()
        finite = record.finite & record.informative
        found = AttackResult(record.inside, record.inside_margin, finite, queue.needed, forwards, queries=queue.moved)
        return Nearest(record.nearest, record.distance, found)

    def _step(self, slots: "_Slots", margins: PerExample, slope: Inputs, limits: tuple[Tensor, Tensor]) -> None:
        """Move by Adam along the normalised gradient, cut to the box, and set small changes back."""
        wide, d = (-1, *[1] * (slope.dim() - 1)), slope.shape[1:].numel()
        low, high = limits
        moved, broken = slots.moved, (margins > 0).view(wide)
        count = 2 * moved * self.sigma / (moved.square() + self.sigma).square() / d
        gradient = count - torch.where(broken, 0.0, slope)
        gradient = gradient / at_least_something(peak(gradient))
        slots.k += 1
        k = slots.k.view(wide).to(slope.dtype)
        slots.mean.lerp_(gradient, 1 - _DECAY)
        slots.squares.lerp_(gradient.square(), 1 - _SQUARES)
        mean, squares = slots.mean / (1 - _DECAY**k), slots.squares / (1 - _SQUARES**k)
        rate = self.rate * (0.1 + 0.45 * (1 + torch.cos(math.pi * (k - 1) / self.steps)))
        moved = moved - rate * mean / (squares.sqrt() + _TINY)
        width = at_least_something(high - low)
        moved = torch.minimum(torch.maximum(moved, (low - slots.x) / width), (high - slots.x) / width)
        shift = self.change * rate
        slots.threshold = (slots.threshold + torch.where(broken, shift, -shift)).clamp(0, 1)
        slots.moved = torch.where(moved.abs() < slots.threshold, 0.0, moved)


def _margin_and_gradient(model: Model, z: Inputs, y: Tensor) -> tuple[PerExample, Inputs]:
    z = z.detach().requires_grad_()
    with torch.enable_grad():
        margins = margin(model(z), y)
        (slope,) = torch.autograd.grad(margins.sum(), z)
    return margins.detach(), slope


@dataclass(eq=False)
class _Slots:
    """The climbs under way, one a slot."""

    x: Inputs
    moved: Inputs
    """z - x, in units of the box."""
    mean: Inputs
    """Adam's running mean of the gradient."""
    squares: Inputs
    """Adam's running mean of its squares."""
    threshold: Tensor
    """(slots, 1, ...)."""
    k: Tensor
    """Moves so far."""

    @classmethod
    def empty(cls, like: Inputs, count: int) -> "_Slots":
        zeros = like.new_zeros((count, *like.shape[1:]))
        k = torch.zeros(count, dtype=torch.int64, device=like.device)
        threshold = like.new_zeros((count, *[1] * (like.dim() - 1)))
        return cls(zeros, zeros.clone(), zeros.clone(), zeros.clone(), threshold, k)

    def begin(self, seats: Tensor, x: Inputs, threshold: float) -> None:
        self.x[seats], self.threshold[seats] = x, threshold
        for part in (self.moved, self.mean, self.squares, self.k):
            part[seats] = 0

    def rows(self, rows: Tensor) -> "_Slots":
        parts = (self.x, self.moved, self.mean, self.squares, self.threshold, self.k)
        return _Slots(*(part[rows] for part in parts))


class _Record:
    """The misclassified point of fewest changed features, and the largest margin inside the threat set, so far."""

    def __init__(self, x: Inputs, threat: Threat) -> None:
        self.x, self.threat = x, threat
        self.nearest, self.inside = x.clone(), x.clone()
        self.distance, self.inside_margin = x.new_full((len(x),), torch.inf), x.new_full((len(x),), -torch.inf)
        self.finite = torch.ones(len(x), dtype=torch.bool, device=x.device)
        self.informative = torch.zeros_like(self.finite)

    def look(self, queue: ClimbQueue, z: Inputs, margins: PerExample) -> Tensor:
        """Record the points in the slots; tell which margins are finite."""
        rows, sound = queue.row, margins.isfinite()
        self.finite[rows[queue.active & ~sound]] = False
        distance = self.threat.distance(self.x[rows], z)
        nearer = queue.active & sound & (margins > 0) & (distance < self.distance[rows])
        self.nearest[rows[nearer]], self.distance[rows[nearer]] = z[nearer], distance[nearer]
        allowed = self.threat.contains(self.x[rows], z)
        better = queue.active & sound & allowed & (margins > self.inside_margin[rows])
        self.inside[rows[better]], self.inside_margin[rows[better]] = z[better], margins[better]
        return sound
