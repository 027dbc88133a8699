"""Sparse random search: changes of few features, without a gradient."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unperturbed.attacks.base import Attack, AttackResult
from unperturbed.checks import AT_LEAST_ONE, check_fields
from unperturbed.errors import InputError
from unperturbed.losses import margin
from unperturbed.maximise.climb_queue import ClimbQueue
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.threat.geometry import ranked
from unperturbed.threat.sparse import random_support
from unperturbed.types import Batch, Inputs, Model, Norm

_ENDS = (50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries, of 10,000, after which a smaller share of the features is exchanged."""
_DIVISORS = (2.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 15.0, 20.0)
"""The divisors of the first share, up to each of the ends and after the last."""


@dataclass(frozen=True)
class SparseSearch(Attack):
    """Exchange some of the k changed features and their values, and keep changes that raise the margin (Croce et al.
    2022).

    Sparse-RS in L0, https://arxiv.org/abs/2006.12834, algorithm 1: k random features at random ends of the box; each
    query exchanges a share of them, which falls over the queries, for other features. Features are single numbers, not
    the pixels of the paper.

    Attributes:
        label: name of the attack in tables.
        queries: forwards an example, the first point included.
        share: of the k features, exchanged at first (alpha_init).
    """

    name: ClassVar[str] = "sparse-rs"
    needs_gradient: ClassVar[bool | None] = False
    label: str = "Sparse-RS"
    queries: int = 5000
    share: float = 0.3
    restarts: int = 1

    def __post_init__(self) -> None:
        """Raise InputError for a number of queries or a share out of range, and for restarts."""
        check_fields(self, queries=AT_LEAST_ONE, restarts=AT_LEAST_ONE)
        if not 0 < self.share <= 1 or self.restarts != 1:
            raise InputError(
                f"Sparse-RS with share {self.share} and restarts {self.restarts}: the share lies in (0, 1], and there "
                "is one climb."
            )

    def supports(self, norm: Norm) -> bool:
        """Tell whether the norm is L0."""
        return norm == "L0"

    def __call__(self, model: Model, batch: Batch, threat: Threat, noise: Noise, batch_size: int) -> AttackResult:
        """Attack every example."""
        x, n, count = batch.x, len(batch.x), threat.features(batch.x)
        low, high = (bound.expand(x.shape[1:]) for bound in threat.finite_limits(x))
        queue = ClimbQueue(n, batch_size, 1, x.device, self.queries)
        best_z, best_margin = x.clone(), x.new_full((n,), -torch.inf)
        finite, forwards = torch.ones(n, dtype=torch.bool, device=x.device), 0
        k = torch.zeros_like(queue.row)
        z = x[queue.row] if n else x.new_zeros((len(k), *x.shape[1:]))
        chosen = torch.zeros_like(z, dtype=torch.bool)
        best, best_chosen, lead = z.clone(), chosen.clone(), x.new_full((len(k),), -torch.inf)
        free = threat.fixed(torch.zeros_like(x[:1]), torch.ones_like(x[:1])) > 0

        def fill_free_slots() -> None:
            nonlocal z, chosen, best, best_chosen, lead, k
            seats, rows = queue.fill()
            drawn = noise.rows(rows)
            chosen[seats] = random_support("L0", drawn.fold(0), x[rows], count, free)
            z[seats] = torch.where(chosen[seats], _ends(drawn.fold(1), x[rows], low, high), x[rows])
            k[seats], lead[seats], best[seats] = 0, -torch.inf, x[rows]
            remaining = queue.shrink()
            if remaining is not None:
                parts = (z, chosen, best, best_chosen, lead, k)
                z, chosen, best, best_chosen, lead, k = (part[remaining] for part in parts)

        fill_free_slots()
        while queue.busy():
            with torch.no_grad():
                margins = margin(model(z), batch.y[queue.row])
            forwards += int(queue.active.sum())
            sound = margins.isfinite()
            finite[queue.row[queue.active & ~sound]] = False
            better = (margins > lead) & sound
            best[better], best_chosen[better], lead[better] = z[better], chosen[better], margins[better]

            k += 1
            over = (lead > 0) | ~sound
            finished = queue.active & (over | (k >= self.queries))
            rows_left = queue.row[finished]
            best_z[rows_left], best_margin[rows_left] = best[finished], lead[finished]
            queue.leave(finished, over)
            drawn = noise.rows(queue.row).fold(k + 1)
            chosen, fresh = self._exchanged(best_chosen, drawn.fold(0), k, count, free)
            values = _ends(drawn.fold(1), z, low, high)
            z = torch.where(fresh, values, torch.where(chosen, best, x[queue.row] if n else best))
            if bool(finished.any()):
                fill_free_slots()
        return AttackResult(best_z, best_margin, finite, queue.needed, forwards, 0, queue.moved)

    def _exchanged(self, chosen: Tensor, noise: Noise, k: Tensor, count: int, free: Tensor) -> tuple[Tensor, Tensor]:
        """Exchange some of the changed features for other free ones; return the new set, and those with new values."""
        if count == 0:
            return chosen, chosen
        wide = (-1, *[1] * (chosen.dim() - 1))
        ends = torch.tensor(_ENDS, device=k.device) * (self.queries / 10_000)
        share = self.share / torch.tensor(_DIVISORS, device=k.device)[torch.bucketize(k.float(), ends)]
        number = (share * count).round().clamp(1, max(count, 1))
        left = int(free.sum()) - count
        order = noise.uniform(chosen.shape[1:], torch.float64)  # no two are equal
        leaving = chosen & (order >= ranked(torch.where(chosen, order, 0.0), number))
        others = free & ~chosen
        arriving = others & (order >= ranked(torch.where(others, order, 0.0), number.clamp(max=max(left, 1))))
        if left < count:  # fewer features are left than may be exchanged: what leaves stays, with another value
            spare = (number > left).view(wide)
            return torch.where(spare, chosen, (chosen & ~leaving) | arriving), torch.where(spare, leaving, arriving)
        return (chosen & ~leaving) | arriving, arriving


def _ends(noise: Noise, like: Inputs, low: Tensor, high: Tensor) -> Inputs:
    """Return random ends of the box for every feature."""
    return torch.where(noise.uniform(like.shape[1:], like.dtype) < 0.5, low.to(like), high.to(like))
