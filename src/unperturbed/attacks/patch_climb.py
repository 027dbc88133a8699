"""Patch-PGD: climbs inside one square, at the places where the gradient promises most."""

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from unperturbed.attacks.base import Attack, AttackResult
from unperturbed.checks import AT_LEAST_ONE, check_fields
from unperturbed.losses import margin
from unperturbed.maximise.apgd import APGD
from unperturbed.maximise.ascent import Ascent, search
from unperturbed.maximise.climb_queue import slots_needed
from unperturbed.maximise.slopes import usable
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.threat.sparse import squares, window_sums
from unperturbed.types import Batch, Inputs, Model, Norm, PerExample, Rows


@dataclass(frozen=True)
class PatchClimb(Attack):
    """Climb the margin by the pixels of one square, in the whole box, from random content, place after place.

    (Brown et al. 2017, https://arxiv.org/abs/1712.09665, for one image and one place at a time.) A place is worth the
    sum of |g| |bound - x| over its square, g the margin's gradient at x: what its pixels gain to first order, each at
    the bound that g points to. Places are taken by falling worth, and one that overlaps an earlier one by more than
    half of its height and width is skipped while there are others.

    Attributes:
        label: name of the attack in tables.
        ascent: the step rule.
        places: the number of squares, one after the other.
        restarts: the largest number of rounds over all places.
    """

    name: ClassVar[str] = "patch-pgd"
    needs_gradient: ClassVar[bool | None] = True
    label: str = "Patch-PGD"
    ascent: Ascent = field(default_factory=lambda: APGD(steps=50))
    places: int = 10
    restarts: int = 1

    def __post_init__(self) -> None:
        """Refuse numbers that leave nothing to do."""
        check_fields(self, places=AT_LEAST_ONE, restarts=AT_LEAST_ONE)

    def supports(self, norm: Norm) -> bool:
        """Tell whether the norm is Patch."""
        return norm == "Patch"

    def __call__(self, model: Model, batch: Batch, threat: Threat, noise: Noise, batch_size: int) -> AttackResult:
        """Attack every example."""
        x, side, n = batch.x, threat.features(batch.x), len(batch.x)
        low, high = (limit.expand_as(x) for limit in threat.finite_limits(x))
        corners, informative = _places(model, batch, (low, high), side, self.places, batch_size)
        count = corners.shape[1]
        score = _Inside(model, batch, corners, side, torch.zeros_like(batch.y))
        middle = (low + high) / 2
        box = Threat("Linf", float((high - low).max()) / 2 if n else 0.0, threat.bounds)
        best = search(self.ascent, score, middle, box, noise, count * self.restarts, batch_size)
        z, lead = _best_place(score, best.z, batch_size)
        rounds = (best.restart + count - 1) // count
        passes = best.passes + n * (1 + count)
        queries = best.queries + 1 + count
        return AttackResult(z, lead, best.finite & informative, rounds, passes, best.passes + n, queries)


@dataclass(frozen=True, eq=False)
class _Inside:
    """The margin of x with the content of an image in one square; the numbers of climbs determine their squares."""

    model: Model
    batch: Batch
    corners: Tensor
    side: int
    climb: Rows

    def of_climb(self, numbers: Rows, moves: Rows) -> "_Inside":
        return replace(self, climb=numbers)

    def __call__(self, z: Inputs, rows: Rows) -> tuple[PerExample, PerExample]:
        lead = margin(self.model(self.put(z, rows)), self.batch.y[rows])
        return lead, lead.detach()

    def put(self, z: Inputs, rows: Rows) -> Inputs:
        corner = self.corners[rows, self.climb % self.corners.shape[1]]
        return torch.where(squares(corner, self.side, z), z, self.batch.x[rows])


def _places(
    model: Model, batch: Batch, limits: tuple[Tensor, Tensor], side: int, places: int, batch_size: int
) -> tuple[Tensor, Tensor]:
    """Return the corners of the squares of each example, best first, (n, places, 2), and which gradients tell."""
    parts, size = [], slots_needed(len(batch.x), batch_size)
    for rows in torch.split(torch.arange(len(batch.x), device=batch.x.device), size):
        rows_padded = rows[torch.arange(size, device=rows.device) % len(rows)]
        x = batch.x[rows_padded].requires_grad_()
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(margin(model(x), batch.y[rows_padded]).sum(), x)
        parts.append(slope[: len(rows)])
    slope = torch.cat(parts) if parts else torch.zeros_like(batch.x)
    informative = ~slope.isnan().flatten(1).all(dim=1)
    slope = usable(slope)
    gain = slope.abs() * (torch.where(slope > 0, limits[1], limits[0]) - batch.x).abs()
    worth = window_sums(gain, side)
    tall, wide = worth.shape[1:]
    down, across = torch.arange(tall, device=worth.device), torch.arange(wide, device=worth.device)
    chosen, near = [], side / 2
    taken = torch.zeros_like(worth, dtype=torch.bool)
    for _ in range(min(places, tall * wide)):
        # without an untaken place that is far from the others, the best of those that are near
        left = worth.masked_fill(taken, -torch.inf)
        place = left.flatten(1).argmax(1)
        corner = torch.stack([place // wide, place % wide], dim=1)
        chosen.append(corner)
        far_down, far_across = (down - corner[:, :1]).abs(), (across - corner[:, 1:]).abs()
        overlapping = (far_down < near)[:, :, None] & (far_across < near)[:, None, :]
        worth = torch.where(overlapping, worth - worth.flatten(1).amax(1).view(-1, 1, 1) - 1, worth)
        taken |= (far_down == 0)[:, :, None] & (far_across == 0)[:, None, :]
    return torch.stack(chosen, dim=1), informative


def _best_place(score: _Inside, z: Inputs, batch_size: int) -> tuple[Inputs, PerExample]:
    """Return the best points with the content of z at one of the places, and their margins."""
    n = len(z)
    best, lead = score.batch.x.clone(), torch.full((n,), -torch.inf).to(z)
    if n == 0:
        return best, lead
    size, rows = slots_needed(n, batch_size), torch.arange(n, device=z.device)
    for climb in range(score.corners.shape[1]):
        for part in torch.split(rows, size):
            padded = part[torch.arange(size, device=part.device) % len(part)]
            at = score.of_climb(torch.full_like(padded, climb), padded)
            point = at.put(z[padded], padded)
            with torch.no_grad():
                value = margin(score.model(point), score.batch.y[padded])[: len(part)]
            better = value > lead[part]
            best[part[better]], lead[part[better]] = point[: len(part)][better], value[better]
    return best, lead
