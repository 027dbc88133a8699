"""Square: random search with patches, which needs no gradient."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch

from unperturbed.attacks.base import Attack, AttackResult
from unperturbed.attacks.exhaustion import Exhaustion
from unperturbed.attacks.patches import Draw, Patches
from unperturbed.checks import AT_LEAST_ONE, NONE_OR_MORE, SHARE, check_fields
from unperturbed.errors import InputError
from unperturbed.losses import margin
from unperturbed.maximise.climb_queue import ClimbQueue, at_least_two
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Model, Rows


@dataclass(frozen=True)
class Square(Attack):
    """Change a random square, and keep the change where the margin grows (Andriushchenko et al. 2020).

    https://arxiv.org/abs/1912.00049. In Linf (algorithm 2) the search starts from vertical stripes and sets a square to
    x ± eps, one sign a channel. In L2 (algorithm 3) and L1 (as in Croce & Hein 2021, https://arxiv.org/abs/2103.01208)
    a square gets two opposite bumps, and the budget of a second square, which is reset. Squares may lie anywhere in the
    image; a vector is an image of one row, and its squares are stretches.

    Attributes:
        label: name of the attack in tables.
        queries: forwards an example, the first point included.
        share: the share of the image that the first squares cover.
    """

    needs_gradient: ClassVar[bool | None] = False
    label: str = "Square"
    queries: int = 5000
    share: float = 0.8
    restarts: int = 1

    def __post_init__(self) -> None:
        """Raise InputError for a number of queries or a share out of range, and for restarts."""
        check_fields(self, queries=AT_LEAST_ONE, restarts=AT_LEAST_ONE)
        if not 0 < self.share <= 1 or self.restarts != 1:
            raise InputError(
                f"Square with queries {self.queries}, share {self.share}, restarts {self.restarts}: queries are at "
                "least 1, the share lies in (0, 1], and there is one climb."
            )

    def __call__(self, model: Model, batch: Batch, threat: Threat, noise: Noise, batch_size: int) -> AttackResult:
        """Attack every example."""
        patches = Patches(threat, batch.x, self.share)

        def begin(rows: Rows) -> Inputs:
            pair = at_least_two(rows)
            return patches.first(batch.x[pair], noise.rows(pair))[: len(rows)]

        return _random_search(patches, begin, model, batch, noise, batch_size, self.queries)


@dataclass(frozen=True)
class LocalSearch(Attack):
    """Square's random search from the best point that earlier attacks have found, with small squares from the start.

    It breaks examples where the gradient leads to a point and no further, as on networks with thresholds. The moves are
    those of Andriushchenko et al. 2020, https://arxiv.org/abs/1912.00049.

    Attributes:
        label: name of the attack in tables.
        queries: forwards an example, the first point included.
        share: the share of the image that the first squares of Square cover.
        skipped: number of queries that are left out at the beginning of Square's schedule of sizes.
    """

    needs_gradient: ClassVar[bool | None] = False
    label: str = "Local-Search"
    queries: int = 250
    share: float = 0.8
    skipped: int = 1000
    restarts: int = 1

    def __post_init__(self) -> None:
        """Raise InputError for numbers out of range."""
        check_fields(self, queries=AT_LEAST_ONE, restarts=AT_LEAST_ONE, skipped=NONE_OR_MORE, share=SHARE)

    def __call__(self, model: Model, batch: Batch, threat: Threat, noise: Noise, batch_size: int) -> AttackResult:
        """Attack every example, from `batch.z`."""
        patches = Patches(threat, batch.x, self.share)
        return _random_search(
            patches, lambda rows: batch.z[rows], model, batch, noise, batch_size, self.queries, self.skipped
        )


def _random_search(
    patches: Patches,
    begin: Callable[[Rows], Inputs],
    model: Model,
    batch: Batch,
    noise: Noise,
    batch_size: int,
    queries: int,
    skipped: int = 0,
) -> AttackResult:
    """Change a patch of each example's best point, and keep the change where the margin grows, `queries` times."""
    x, n = batch.x, len(batch.x)
    queue = ClimbQueue(n, batch_size, 1, x.device, queries)
    best_z, best_margin = x.clone(), x.new_full((n,), -torch.inf)
    finite, forwards = torch.ones(n, dtype=torch.bool, device=x.device), 0
    k = torch.zeros_like(queue.row)
    origin = x[queue.row] if n else x.new_zeros((len(k), *x.shape[1:]))
    best, lead = origin.clone(), x.new_full((len(k),), -torch.inf)  # the best point in each slot, and its margin
    z = origin.clone()
    ends, plan = patches.ends(origin), list[Draw]()
    exhaustion = Exhaustion(patches, skipped, len(k), x.device)

    def fill_free_slots() -> None:
        nonlocal origin, best, lead, z, k, ends, plan
        seats, rows = queue.fill()
        if len(seats) > 0:
            k[seats], origin[seats], best[seats], lead[seats] = 0, x[rows], x[rows], -torch.inf
            z[seats] = begin(rows)
            exhaustion.begin(seats)
        remaining = queue.shrink()
        if remaining is not None:
            origin, best, lead, z, k = (values[remaining] for values in (origin, best, lead, z, k))
            exhaustion.shrink(remaining)
        ends, plan = patches.ends(origin), list[Draw]()

    fill_free_slots()
    while queue.busy():
        with torch.no_grad():
            margins = margin(model(z), batch.y[queue.row])
        forwards += int(queue.active.sum())
        sound = margins.isfinite()
        finite[queue.row[queue.active & ~sound]] = False
        exhausted = exhaustion.note(z, margins, lead, ends)
        better = margins > lead
        best[better], lead = z[better], torch.where(better, margins, lead)

        k += 1
        over = (lead > 0) | ~sound | exhausted
        finished = queue.active & (over | (k >= queries))
        rows_left = queue.row[finished]
        best_z[rows_left], best_margin[rows_left] = best[finished], lead[finished]
        queue.leave(finished, over)
        is_new_plan = not plan
        plan = plan or patches.plan(noise.rows(queue.row), k + skipped)
        draw = plan.pop()
        z = exhaustion.propose(patches.change(origin, best, ends, draw), best, k, draw.corner, ends, look=is_new_plan)
        if bool(finished.any()):
            fill_free_slots()
    return AttackResult(best_z, best_margin, finite, queue.needed, forwards, 0, queue.moved)
