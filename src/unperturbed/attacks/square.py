"""Square: random search with patches, which needs no gradient."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unperturbed.attacks.base import Attack, Found
from unperturbed.errors import InputError
from unperturbed.losses import margin
from unperturbed.maximise.places import Places, at_least_two
from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Batch, Inputs, Model, Norm

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""After these queries the share of the image that a patch covers is halved."""


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

    label: str = "Square"
    queries: int = 5000
    share: float = 0.8
    restarts: int = 1

    def __post_init__(self) -> None:
        """Refuse what is no number of queries, and more than the one climb that there is."""
        if self.queries < 1 or not 0 < self.share <= 1 or self.restarts != 1:
            raise InputError(
                f"Square with queries {self.queries}, share {self.share}, restarts {self.restarts}: queries are at "
                "least 1, the share lies in (0, 1], and there is one climb."
            )

    def __call__(self, model: Model, batch: Batch, threat: Threat, noise: Noise, places: int) -> Found:
        """Attack every example."""
        x, n = batch.x, len(batch.x)
        patches = _Patches(threat.norm, x, self.share)
        at, k = Places(n, places, 1, x.device), torch.zeros(places, dtype=torch.int64, device=x.device)
        best_z, best = x.clone(), x.new_full((n,), -torch.inf)
        finite, forwards = torch.ones(n, dtype=torch.bool, device=x.device), 0
        here = x[at.row] if n else x.new_zeros((places, *x.shape[1:]))
        z = here.clone()

        def fill_free_places() -> None:
            seats, rows = at.fill()
            if len(seats) == 0:
                return
            pair = at_least_two(rows)
            k[seats], here[seats] = 0, x[rows]
            z[seats] = patches.first(x[pair], threat, noise.rows(pair))[: len(rows)]

        fill_free_places()
        while bool(at.active.any()):
            with torch.no_grad():
                margins = margin(model(z), batch.y[at.row])
            forwards += int(at.active.sum())
            sound = margins.isfinite()
            finite[at.row[at.active & ~sound]] = False
            better = at.active & (margins > best[at.row])
            rows = at.row[better]
            best_z[rows], best[rows] = z[better], margins[better]

            k += 1
            broken = best[at.row] > 0
            done = at.active & (broken | ~sound | (k >= self.queries))
            at.leave(done, done)
            z = patches.change(here, best_z[at.row], threat, noise.rows(at.row).fold(k), k)
            if bool(done.any()):
                fill_free_places()
        return Found(best_z, best, finite, at.begun, forwards, 0)


class _Patches:
    """The proposals for inputs of one shape: squares of each size that the schedule has, and their bumps."""

    def __init__(self, norm: Norm, like: Inputs, share: float) -> None:
        self.image = _as_image(like.shape[1:])
        _, tall, wide = self.image
        shares = [share / 2**level for level in range(len(_HALVINGS) + 1)]
        sizes = [_patch_size(tall, wide, each, norm) for each in shares]
        self.sizes = torch.tensor(sizes, device=like.device)
        self.halvings = torch.tensor(_HALVINGS, device=like.device)
        self.power = {"Linf": 0, "L2": 2, "L1": 1}[norm]
        self.bumps = torch.stack([_bumps(size, tall, wide, self.power) for size in sizes]).to(like)
        first = (
            1 if tall == 1 else max(min(tall, wide) // 5, 1),
            max((wide if tall == 1 else min(tall, wide)) // 5, 1),
        )
        self.first_size, self.first_bumps = first, _bumps(first, tall, wide, self.power).to(like)

    def first(self, x: Inputs, threat: Threat, noise: Noise) -> Inputs:
        """Return the first points: vertical stripes in Linf, a grid of bumps in L2 and L1."""
        channels, tall, wide = self.image
        noise = noise.fold(0)
        if threat.norm == "Linf":
            signs = (noise.uniform((channels, 1, wide), x.dtype) - 0.5).sign().expand(-1, -1, tall, -1)
            return threat.project(x, x + threat.eps * signs.reshape(x.shape))
        height, width = self.first_size
        down, across = torch.arange(tall, device=x.device), torch.arange(wide, device=x.device)
        down, across = down - (tall % height) // 2, across - (wide % width) // 2
        rows, columns = tall // height, wide // width
        inside = ((down >= 0) & (down < rows * height))[:, None] & ((across >= 0) & (across < columns * width))
        tile = (down.clamp(0, rows * height - 1) // height)[:, None] * columns + across.clamp(
            0, columns * width - 1
        ) // width
        turned = (noise.fold(0).uniform((rows * columns,), x.dtype) > 0.5).long()[:, tile]
        bumps = self.first_bumps[turned, (down % height)[:, None], across % width] * inside
        signs = (noise.fold(1).uniform((channels, rows * columns), x.dtype) - 0.5).sign()[:, :, tile]
        delta = (bumps[:, None] * signs).reshape(x.shape)
        return threat.extend(x, delta) if threat.norm == "L2" else threat.project(x, x + delta)

    def change(self, x: Inputs, z: Inputs, threat: Threat, noise: Noise, k: Tensor) -> Inputs:
        """Return the proposals for query number k."""
        channels, tall, wide = self.image
        draw = noise.uniform((5 + channels,), x.dtype)
        signs = (draw[:, 5:] - 0.5).sign()[:, :, None, None]
        level = (k[:, None] > self.halvings).sum(1)
        height, width = self.sizes[level].unbind(1)
        top, left, other_top, other_left = (
            (draw[:, column] * (extent - size + 1)).long().minimum(extent - size)
            for column, (extent, size) in enumerate([(tall, height), (wide, width)] * 2)
        )
        down, across = torch.arange(tall, device=x.device), torch.arange(wide, device=x.device)
        down, across = down - top[:, None], across - left[:, None]
        square = _within(down, height)[:, :, None] & _within(across, width)[:, None, :]
        square = square[:, None]
        if threat.norm == "Linf":
            return threat.project(x, z + (2 * threat.eps * signs * square).reshape(x.shape))

        other = (
            _within(torch.arange(tall, device=x.device) - other_top[:, None], height)[:, :, None]
            & _within(torch.arange(wide, device=x.device) - other_left[:, None], width)[:, None, :]
        )[:, None]
        turned = (draw[:, 4] > 0.5).long()
        places = ((level * 2 + turned)[:, None] * tall + down.clamp(0, tall - 1))[:, :, None] * wide
        bumps = self.bumps.flatten()[places + across.clamp(0, wide - 1)[:, None, :]][:, None]
        delta = (z - x).reshape(-1, *self.image)
        within, power = delta * square, self.power
        new = (bumps * signs + within / (self._length(within, threat) + 1e-12)) * square
        spare = (threat.eps**power - threat.distance(x, z) ** power).clamp(min=0.0).view(-1, 1, 1, 1)
        given = self._length(delta * (square | other), threat) ** power
        budget = (spare / channels + given) ** (1 / power) * (1 if power == 2 else channels)
        new = new / (self._length(new, threat) + 1e-12) * budget
        delta = torch.where(square, new, delta * ~other).reshape(x.shape)
        return threat.extend(x, delta) if threat.norm == "L2" else threat.project(x, x + delta)

    def _length(self, delta: Tensor, threat: Threat) -> Tensor:
        """Return the length of each channel."""
        flat = delta.flatten(0, 1)
        return threat.distance(torch.zeros_like(flat), flat).view(*delta.shape[:2], 1, 1)


def _as_image(shape: torch.Size) -> tuple[int, int, int]:
    """Return channels, height and width of an input; whatever comes before the last two axes is channels."""
    height, width = (1, 1, *shape)[-2:]
    return math.prod(shape[:-2]), height, width


def _within(offset: Tensor, size: Tensor) -> Tensor:
    return (offset >= 0) & (offset < size[:, None])


def _patch_size(tall: int, wide: int, share: float, norm: Norm) -> tuple[int, int]:
    """Return height and width of a square of this share of the image; outside of Linf odd, and at least 3."""
    least = 1 if norm == "Linf" else 3
    if tall == 1:
        return 1, min(max(round(share * wide), least), wide)
    side = max(round(math.sqrt(share * tall * wide)), least)
    side += 1 - side % 2 if norm != "Linf" else 0
    return min(side, tall, wide), min(side, tall, wide)


def _bumps(size: tuple[int, int], tall: int, wide: int, power: int) -> Tensor:
    """Return two opposite bumps, one above the other and side by side, in the corner of an empty image: (2, ...)."""
    height, width = size
    canvas = torch.zeros(2, tall, wide)
    if power:
        above = torch.cat([_bump(height // 2, width, power), -_bump(height - height // 2, width, power)])
        beside = torch.cat([_bump(height, width // 2, power), -_bump(height, width - width // 2, power)], dim=1)
        canvas[0, :height, :width] = _to_unit(beside if height == 1 else above, power)
        canvas[1, :height, :width] = _to_unit(beside, power)
    return canvas


def _bump(height: int, width: int, power: int) -> Tensor:
    """Return a pyramid that sums 1 / c^2 (in L1, 1 / c^4) over the squares of side 2c - 1 that hold a pixel, c from 1.

    (Section 3.3 of the paper; of unit length.)
    """
    if height * width == 0:
        return torch.zeros(height, width)
    rings = max(height // 2, width // 2) + 1
    down, across = (torch.arange(side) - side // 2 for side in (height, width))
    ring = torch.maximum(down.abs()[:, None], across.abs())
    heights = (1.0 / torch.arange(1, rings + 1) ** (2 if power == 2 else 4)).flip(0).cumsum(0).flip(0)
    return _to_unit(heights[ring], power)


def _to_unit(bump: Tensor, power: int) -> Tensor:
    return bump / bump.abs().pow(power).sum() ** (1 / power)
