"""The proposals of random search with patches: squares of ever smaller sizes, and bumps."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unperturbed.noise import Noise
from unperturbed.threat import Threat
from unperturbed.types import Inputs, Norm

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Queries after which the share of the image that a patch covers is halved."""

_PLANNED = 16
"""Number of queries whose proposals are drawn together."""


@dataclass(frozen=True, eq=False)
class Draw:
    """One proposal of Square (https://arxiv.org/abs/1912.00049) for each slot: (p, ...)."""

    signs: Tensor
    """(p, channels)."""
    size: Tensor
    """Height and width of the square: (p, 2)."""
    largest: tuple[int, int]
    """Height and width of the largest square."""
    corner: Tensor
    """Its upper left corner: (p, 2)."""
    other: Tensor
    """The corner of the square whose budget moves to the first, in L2 and L1."""
    bump: Tensor
    """The index of the bump."""


class Patches:
    """The proposals for inputs of one shape: squares of each size that the schedule has, and their bumps.

    Andriushchenko et al. 2020, https://arxiv.org/abs/1912.00049, sections 3.2 and 3.3.
    """

    def __init__(self, threat: Threat, like: Inputs, share: float) -> None:
        self.threat, self.image = threat, _as_image(like.shape[1:])
        _, tall, wide = self.image
        self.extents = torch.tensor([tall, wide], device=like.device)
        self.down, self.across = (torch.arange(extent, device=like.device) for extent in (tall, wide))
        shares = [share / 2**level for level in range(len(_HALVINGS) + 1)]
        sizes = [_patch_size(tall, wide, share_covered, threat.norm) for share_covered in shares]
        self.sizes = torch.tensor(sizes, device=like.device)
        self.halvings = torch.tensor(_HALVINGS, device=like.device)
        self.power = {"Linf": 0, "L2": 2, "L1": 1}[threat.norm]
        self.bumps = torch.stack([_bumps(size, tall, wide, self.power) for size in sizes]).to(like)
        first = (
            1 if tall == 1 else max(min(tall, wide) // 5, 1),
            max((wide if tall == 1 else min(tall, wide)) // 5, 1),
        )
        self.first_size, self.first_bumps = first, _bumps(first, tall, wide, self.power).to(like)

    def first(self, x: Inputs, noise: Noise) -> Inputs:
        """Return the first points: vertical stripes in Linf, a grid of bumps in L2 and L1."""
        channels, tall, wide = self.image
        threat, noise = self.threat, noise.fold(0)
        if threat.norm == "Linf":
            signs = (noise.uniform((channels, 1, wide), x.dtype) - 0.5).sign().expand(-1, -1, tall, -1)
            return threat.project(x, x + threat.radii(x) * signs.reshape(x.shape))
        height, width = self.first_size
        down, across = self.down - (tall % height) // 2, self.across - (wide % width) // 2
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

    def plan(self, noise: Noise, k: Tensor) -> list[Draw]:
        """Return the proposals for the queries number k to k + `_PLANNED` - 1 of each slot, the last one first.

        Together, because a draw costs as much for one query as for many.
        """
        slots, channels = len(k), self.image[0]
        queries = k[:, None] + torch.arange(_PLANNED, device=k.device)
        rows = torch.arange(slots, device=k.device).repeat_interleave(_PLANNED)
        draw = noise.rows(rows).fold(queries.flatten()).uniform((5 + channels,)).view(slots, _PLANNED, -1)
        level = (queries[:, :, None] > self.halvings).sum(2)
        size = self.sizes[level]
        spare = self.extents - size
        corner, second = (((draw[:, :, i : i + 2] * (spare + 1)).long()).minimum(spare) for i in (0, 2))
        signs, bump = (draw[:, :, 5:] - 0.5).sign(), level * 2 + (draw[:, :, 4] > 0.5)
        largest = [(height, width) for height, width in size.amax(0).tolist()]
        parts = (signs.unbind(1), size.unbind(1), largest, corner.unbind(1), second.unbind(1), bump.unbind(1))
        return [Draw(*columns) for columns in zip(*parts, strict=True)][::-1]

    def single_pixels_after(self) -> int | None:
        """Return the query after which every square in Linf is a single pixel; None if larger ones remain."""
        larger = [level for level, size in enumerate(self.sizes.tolist()) if size != [1, 1]]
        last = max(larger, default=-1)
        if self.threat.norm != "Linf" or last == len(_HALVINGS):
            return None
        return _HALVINGS[last] if last >= 0 else 0

    def ends(self, x: Inputs) -> tuple[Inputs, Inputs]:
        """Return the corners of S(x) in Linf."""
        low, high = (self.threat.project(x, x + way * self.threat.radii(x)) for way in (-1, 1))
        return low, high

    def change(self, x: Inputs, z: Inputs, ends: tuple[Inputs, Inputs], draw: Draw) -> Inputs:
        """Return z with the proposed change; in Linf an end of S(x) in the square, one sign a channel."""
        return self._flip(z, ends, draw) if self.threat.norm == "Linf" else self._reshape(x, z, draw)

    def _flip(self, z: Inputs, ends: tuple[Inputs, Inputs], draw: Draw) -> Inputs:
        """Return z with x ± eps in the square; with the opposite signs where z has these values already.

        (The paper draws again until something changes.) Only the pixels in the squares are touched, since the squares
        of most queries are small; a slot whose square is smaller than the largest repeats its last pixels.
        """
        channels, _, wide = self.image
        down, across = (
            (draw.corner[:, axis, None] + torch.minimum(steps[: draw.largest[axis]], draw.size[:, axis, None] - 1))
            for axis, steps in enumerate((self.down, self.across))
        )
        pixels = (down[:, :, None] * wide + across[:, None, :]).flatten(1)[:, None].expand(-1, channels, -1)
        flat, low, high = (part.reshape(len(z), channels, -1) for part in (z, *ends))
        current, low, high = (part.gather(2, pixels) for part in (flat, low, high))
        up = draw.signs[:, :, None] > 0
        idle = torch.where(up, high, low).eq(current).flatten(1).all(1)
        return flat.scatter(2, pixels, torch.where(up ^ idle[:, None, None], high, low)).view(z.shape)

    def _square(self, corner: Tensor, size: Tensor) -> Tensor:
        """Return masks of the squares: bool, (p, 1, height, width)."""
        (first_row, first_column), (height, width) = corner.unbind(1), size.unbind(1)
        rows, columns = (
            _within(self.down - first_row[:, None], height),
            _within(self.across - first_column[:, None], width),
        )
        return (rows[:, :, None] & columns[:, None, :])[:, None]

    def _reshape(self, x: Inputs, z: Inputs, draw: Draw) -> Inputs:
        """Return z with two opposite bumps in the square, which gets the budget of the other square as well."""
        threat, power, (channels, tall, wide) = self.threat, self.power, self.image
        square, second = self._square(draw.corner, draw.size), self._square(draw.other, draw.size)
        down, across = self.down - draw.corner[:, :1], self.across - draw.corner[:, 1:]
        pixels = (draw.bump[:, None] * tall + down.clamp(0, tall - 1))[:, :, None] * wide
        bumps = self.bumps.flatten()[pixels + across.clamp(0, wide - 1)[:, None, :]][:, None]
        delta = (z - x).view(-1, *self.image)
        within = delta * square
        new = (bumps * draw.signs[:, :, None, None] + within / (self._length(within, threat) + 1e-12)) * square
        spare = (threat.eps**power - threat.distance(x, z) ** power).clamp(min=0.0).view(-1, 1, 1, 1)
        freed = self._length(delta * (square | second), threat) ** power
        budget = (spare / channels + freed) ** (1 / power) * (1 if power == 2 else channels)
        new = new / (self._length(new, threat) + 1e-12) * budget
        delta = torch.where(square, new, delta * ~second).view(x.shape)
        return threat.extend(x, delta) if threat.norm == "L2" else threat.project(x, x + delta)

    def _length(self, delta: Tensor, threat: Threat) -> Tensor:
        """Return the length of each channel."""
        flat = delta.flatten(0, 1)
        return threat.distance(torch.zeros_like(flat), flat).view(*delta.shape[:2], 1, 1)


def _per_input(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.dim() - 1))


def _as_image(shape: torch.Size) -> tuple[int, int, int]:
    """Return channels, height and width of an input; the axes before the last two are channels."""
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
        left_right = torch.cat([_bump(height, width // 2, power), -_bump(height, width - width // 2, power)], dim=1)
        canvas[0, :height, :width] = _to_unit(left_right if height == 1 else above, power)
        canvas[1, :height, :width] = _to_unit(left_right, power)
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
