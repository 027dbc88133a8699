"""Sparse random search with one square: content and place change in turns, without a gradient."""

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
from unperturbed.threat.sparse import as_images, squares
from unperturbed.types import Batch, Inputs, Model, Norm

_EVERY = 5
"""One query in so many moves the square; the others change its content."""


@dataclass(frozen=True)
class PatchSearch(Attack):
    """Change a smaller square inside the patch, or move the patch, and keep what raises the margin (Croce et al. 2022).

    Sparse-RS for patches of one image, https://arxiv.org/abs/2006.12834, section 4: the content begins with random ends
    of the box, one for each channel. A query sets a smaller square to random ends, one a channel, or moves the patch
    with its content. The side of the smaller square falls from that of the patch to 1, and the longest move from the
    whole image to one pixel, both by the square root of a share that falls to 0 over the queries.

    Attributes:
        label: name of the attack in tables.
        queries: forwards an example, the first point included.
    """

    name: ClassVar[str] = "patch-rs"
    needs_gradient: ClassVar[bool | None] = False
    label: str = "Patch-RS"
    queries: int = 2000
    restarts: int = 1

    def __post_init__(self) -> None:
        """Raise InputError for a number of queries out of range, and for restarts."""
        check_fields(self, queries=AT_LEAST_ONE)
        if self.restarts != 1:
            raise InputError(f"Patch-RS with restarts {self.restarts}: there is one climb.")

    def supports(self, norm: Norm) -> bool:
        """Tell whether the norm is Patch."""
        return norm == "Patch"

    def __call__(self, model: Model, batch: Batch, threat: Threat, noise: Noise, batch_size: int) -> AttackResult:
        """Attack every example."""
        x, n, side = batch.x, len(batch.x), threat.features(batch.x)
        low, high = (limit.expand(x.shape[1:]) for limit in threat.finite_limits(x))
        queue = ClimbQueue(n, batch_size, 1, x.device, self.queries)
        best_z, best_margin = x.clone(), x.new_full((n,), -torch.inf)
        finite, forwards = torch.ones(n, dtype=torch.bool, device=x.device), 0
        state = _State.empty(x, len(queue.row))

        def fill_free_slots() -> None:
            nonlocal state
            seats, rows = queue.fill()
            state.begin(seats, x[rows], noise.rows(rows), low, high, side)
            remaining = queue.shrink()
            if remaining is not None:
                state = state.rows(remaining)

        fill_free_slots()
        while queue.busy():
            origin = x[queue.row]
            z = torch.where(squares(state.corner, side, origin), state.content, origin)
            with torch.no_grad():
                margins = margin(model(z), batch.y[queue.row])
            forwards += int(queue.active.sum())
            sound = margins.isfinite()
            finite[queue.row[queue.active & ~sound]] = False
            state.keep((margins > state.lead) & sound, margins)

            state.k += 1
            over = (state.lead > 0) | ~sound
            finished = queue.active & (over | (state.k >= self.queries))
            left = queue.row[finished]
            best_margin[left] = state.lead[finished]
            inside = squares(state.best_corner[finished], side, x[left])
            best_z[left] = torch.where(inside, state.best_content[finished], x[left])
            queue.leave(finished, over)
            self._propose(state, noise.rows(queue.row).fold(state.k + 1), low, high, side)
            if bool(finished.any()):
                fill_free_slots()
        return AttackResult(best_z, best_margin, finite, queue.needed, forwards, 0, queue.moved)

    def _propose(self, state: "_State", noise: Noise, low: Tensor, high: Tensor, side: int) -> None:
        """Set the content and the place of the next query, from the best ones."""
        image = as_images(state.best_content)
        extents = torch.tensor(image.shape[2:], device=image.device)
        share = (1 - state.k / self.queries).clamp(min=0).sqrt()[:, None]
        draw = noise.fold(0).uniform((4,), torch.float64)
        room = (extents - side).clamp(min=0)
        longest = (share * room).ceil()
        step = ((2 * draw[:, :2] - 1) * longest).round().long()
        moving = (state.k % _EVERY == 0)[:, None] & bool((room > 0).any())
        corner = (state.best_corner + step).clamp(min=0).minimum(room)
        state.corner = torch.where(moving, corner, state.best_corner)
        shift = (state.corner - state.best_corner).to(torch.int64)
        moved = _shifted(image, shift)

        small = (share * side).ceil().clamp(min=1).long()
        inner = state.best_corner + (draw[:, 2:] * (side - small + 1)).long().minimum(side - small)
        place = [
            (at >= inner[:, axis, None]) & (at < (inner + small)[:, axis, None])
            for axis, at in enumerate(torch.arange(extent, device=image.device) for extent in image.shape[2:])
        ]
        changing = (place[0][:, None, :, None] & place[1][:, None, None, :]) & ~moving[:, :, None, None]
        ends = as_images(_ends(noise.fold(1), state.content, low, high))
        state.content = torch.where(changing, ends, moved).view(state.content.shape)


def _shifted(image: Tensor, shift: Tensor) -> Tensor:
    """Return images moved down and across by (n, 2) pixels; what leaves the image enters at the other side."""
    tall, wide = image.shape[2:]
    down = (torch.arange(tall, device=image.device) - shift[:, :1]) % tall
    across = (torch.arange(wide, device=image.device) - shift[:, 1:]) % wide
    rows = torch.arange(len(image), device=image.device)[:, None, None]
    return image.permute(0, 2, 3, 1)[rows, down[:, :, None], across[:, None, :]].permute(0, 3, 1, 2)


def _ends(noise: Noise, like: Inputs, low: Tensor, high: Tensor) -> Inputs:
    """Return one random end of the box for each channel."""
    channels = as_images(like).shape[1]
    upper = noise.uniform((channels, 1, 1), like.dtype) < 0.5
    lower_end, upper_end = (as_images(bound[None]).to(like) for bound in (low, high))
    return torch.where(upper, upper_end, lower_end).view(like.shape)


@dataclass(eq=False)
class _State:
    """The searches under way, one a slot: content in the whole image, of which only the square at a corner counts."""

    content: Inputs
    corner: Tensor
    best_content: Inputs
    best_corner: Tensor
    lead: Tensor
    """The best margin."""
    k: Tensor
    """Queries so far."""

    @classmethod
    def empty(cls, like: Inputs, count: int) -> "_State":
        content = like.new_zeros((count, *like.shape[1:]))
        corner = torch.zeros(count, 2, dtype=torch.int64, device=like.device)
        lead, k = like.new_full((count,), -torch.inf), torch.zeros(count, dtype=torch.int64, device=like.device)
        return cls(content, corner, content.clone(), corner.clone(), lead, k)

    def begin(self, seats: Tensor, x: Inputs, noise: Noise, low: Tensor, high: Tensor, side: int) -> None:
        room = (torch.tensor(as_images(x).shape[2:], device=x.device) - side).clamp(min=0)
        corner = (noise.fold(0).uniform((2,), torch.float64) * (room + 1)).long().minimum(room)
        self.content[seats] = _ends(noise.fold(1), x, low, high)
        self.corner[seats], self.best_corner[seats], self.best_content[seats] = corner, corner, x
        self.lead[seats], self.k[seats] = -torch.inf, 0

    def keep(self, better: Tensor, margins: Tensor) -> None:
        self.best_content[better], self.best_corner[better] = self.content[better], self.corner[better]
        self.lead[better] = margins[better]

    def rows(self, rows: Tensor) -> "_State":
        parts = (self.content, self.corner, self.best_content, self.best_corner, self.lead, self.k)
        return _State(*(part[rows] for part in parts))
