"""Square: random search with patches, which needs no gradient."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch

from unperturbed.attacks.base import Attack, AttackResult
from unperturbed.attacks.patches import Draw, Patches
from unperturbed.checks import AT_LEAST_ONE, NONE_OR_MORE, SHARE, check_fields
from unperturbed.errors import InputError
from unperturbed.losses import margin
from unperturbed.maximise.places import Places, at_least_two
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Model, Rows


@dataclass(frozen=True)
class Square(Attack):
    """Change a random square, and keep the change where the margin grows (Andriushchenko et al. 2020).

    https://arxiv.org/abs/1912.00049. In Linf (algorithm 2) a square is set to x ± eps, one sign a channel, from
    vertical stripes on. In L2 (algorithm 3) and L1 (as in Croce & Hein 2021, https://arxiv.org/abs/2103.01208) a square
    gets two opposite bumps, and the budget that a second square gives up. Squares may lie anywhere in the image; a
    vector is an image of one row, and its squares are stretches.

    Attributes:
        label: how tables name the attack.
        queries: forwards an example, the first point included.
        share: of the image that the first squares cover.
    """

    needs_gradient: ClassVar[bool | None] = False
    label: str = "Square"
    queries: int = 5000
    share: float = 0.8
    restarts: int = 1

    def __post_init__(self) -> None:
        """Refuse what is no number of queries, and more than the one climb that there is."""
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

    Where gradients lead to a point and no further, as on networks with thresholds, it needs some hundred forwards for
    most of what Square finds in thousands.

    Attributes:
        label: how tables name the attack.
        queries: forwards an example, the first point included.
        share: of the image that the first squares of Square cover.
        skipped: queries of Square's schedule of sizes that are left out at the beginning.
    """

    needs_gradient: ClassVar[bool | None] = False
    label: str = "Local search"
    queries: int = 200
    share: float = 0.8
    skipped: int = 50
    restarts: int = 1

    def __post_init__(self) -> None:
        """Refuse what is no number of queries, and more than the one climb that there is."""
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
    at = Places(n, batch_size, 1, x.device, queries)
    best_z, best_margin = x.clone(), x.new_full((n,), -torch.inf)
    finite, forwards = torch.ones(n, dtype=torch.bool, device=x.device), 0
    k = torch.zeros_like(at.row)
    here = x[at.row] if n else x.new_zeros((len(k), *x.shape[1:]))
    held, lead = here.clone(), x.new_full((len(k),), -torch.inf)  # the best point in each place, and its margin
    z = here.clone()
    ends, plan = patches.ends(here), list[Draw]()

    def fill_free_places() -> None:
        nonlocal here, held, lead, z, k, ends, plan
        seats, rows = at.fill()
        if len(seats) > 0:
            k[seats], here[seats], held[seats], lead[seats] = 0, x[rows], x[rows], -torch.inf
            z[seats] = begin(rows)
        kept = at.shrink()
        if kept is not None:
            here, held, lead, z, k = (values[kept] for values in (here, held, lead, z, k))
        ends, plan = patches.ends(here), list[Draw]()

    fill_free_places()
    while at.busy():
        with torch.no_grad():
            margins = margin(model(z), batch.y[at.row])
        forwards += int(at.active.sum())
        sound = margins.isfinite()
        finite[at.row[at.active & ~sound]] = False
        better = margins > lead
        held[better], lead = z[better], torch.where(better, margins, lead)

        k += 1
        over = (lead > 0) | ~sound
        done = at.active & (over | (k >= queries))
        leaving = at.row[done]
        best_z[leaving], best_margin[leaving] = held[done], lead[done]
        at.leave(done, over)
        if not plan:
            plan = patches.plan(noise.rows(at.row), k + skipped)
        z = patches.change(here, held, ends, plan.pop())
        if bool(done.any()):
            fill_free_places()
    return AttackResult(best_z, best_margin, finite, at.needed, forwards, 0, at.moved)
