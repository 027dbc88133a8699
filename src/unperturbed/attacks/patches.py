"""The proposals of random search with patches: squares of ever smaller sizes, and bumps."""

import math
from collections.abc import Sequence
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
_MOST_PIXELS = 2**21
"""Pixels in the squares that are drawn together; fewer queries are planned where squares are large."""


@dataclass(frozen=True, eq=False)
class Bumps:
    """The part of a proposal that only L2 and L1 have (https://arxiv.org/abs/1912.00049, section 3.3).

    Tensors are (p, 1, k), k the pixels of the largest square.
    """

    values: Tensor
    """The two opposite bumps in the square."""
    once: Tensor
    """1 for the pixels of the square, 0 where the last ones are repeated."""
    other: Tensor
    """The pixels of the square whose budget moves to the first: (p, channels, k)."""
    alone: Tensor
    """1 for its pixels outside of the first square, without repetitions."""


@dataclass(frozen=True, eq=False)
class Draw:
    """One proposal of Square (https://arxiv.org/abs/1912.00049) for each slot.

    Only the pixels in the squares are touched, since the squares of most queries are small; a slot whose square is
    smaller than the largest repeats its last pixels.
    """

    signs: Tensor
    """(p, channels, 1)."""
    corner: Tensor
    """The upper left corner of the square: (p, 2)."""
    pixels: Tensor
    """The pixels of the square: (p, channels, k)."""
    bumps: Bumps | None
    """In L2 and L1."""


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
        self.bumps = torch.cat([_bumps(size, tall, wide, self.power) for size in sizes]).flatten(1).to(like)
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
        """Return the proposals for the queries number k, k + 1, ... of each slot, the last one first.

        Several together, because a draw costs as much for one query as for many.
        """
        slots, channels = len(k), self.image[0]
        sizes = self.sizes[(k.min() > self.halvings).sum()].tolist()  # they fall with k
        planned = min(max(_MOST_PIXELS // (slots * math.prod(sizes)), 1), _PLANNED)
        queries = k + torch.arange(planned, device=k.device)[:, None]
        rows = torch.arange(slots, device=k.device).repeat(planned)
        draw = noise.rows(rows).fold(queries.flatten()).uniform((5 + channels,)).view(planned, slots, -1)
        level = (queries[:, :, None] > self.halvings).sum(2)
        size = self.sizes[level]
        spare = self.extents - size
        corner, second = (((draw[:, :, i : i + 2] * (spare + 1)).long()).minimum(spare) for i in (0, 2))
        signs, bump = (draw[:, :, 5:, None] - 0.5).sign(), level * 2 + (draw[:, :, 4] > 0.5)

        steps = [side[:most] for side, most in zip((self.down, self.across), sizes, strict=True)]
        squares = _Squares(size, steps)
        pixels = self._pixels(squares, corner)
        bumps = self._bumps_of(squares, corner, second, bump) if self.power else [None] * planned
        return [Draw(*parts) for parts in zip(signs, corner, pixels, bumps, strict=True)][::-1]

    def _pixels(self, squares: "_Squares", corner: Tensor) -> Tensor:
        """Return the pixels of the squares in every channel: (q, p, channels, k)."""
        return squares.pixels(corner, self.image[2])[:, :, None].expand(-1, -1, self.image[0], -1)

    def _bumps_of(self, squares: "_Squares", corner: Tensor, second: Tensor, bump: Tensor) -> Sequence[Bumps]:
        """Return the bumps of q queries, by the corners of both squares and the indices of the bumps."""
        values = self.bumps[bump].gather(2, squares.pixels(torch.zeros_like(corner), self.image[2]))
        once = squares.once()
        alone = once & ~squares.shared(corner, second)
        once, alone = (mask.to(values.dtype)[:, :, None] for mask in (once, alone))
        parts = (values[:, :, None], once, self._pixels(squares, second), alone)
        return [Bumps(*of_query) for of_query in zip(*parts, strict=True)]

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

        (The paper draws again until something changes.)
        """
        flat, low, high = (part.reshape(len(z), self.image[0], -1) for part in (z, *ends))
        current, low, high = (part.gather(2, draw.pixels) for part in (flat, low, high))
        up = draw.signs > 0
        idle = torch.where(up, high, low).eq(current).flatten(1).all(1)
        return flat.scatter(2, draw.pixels, torch.where(up ^ idle[:, None, None], high, low)).view(z.shape)

    def _reshape(self, x: Inputs, z: Inputs, draw: Draw) -> Inputs:
        """Return z with two opposite bumps in the square, which gets the budget of the other square as well."""
        threat, power, bumps = self.threat, self.power, draw.bumps
        assert bumps is not None
        delta = (z - x).reshape(len(x), self.image[0], -1)
        within, beside = (delta.gather(2, pixels) for pixels in (draw.pixels, bumps.other))
        size = _size(within, bumps.once, power)
        new = bumps.values * draw.signs + within / (size ** (1 / power) + 1e-12)
        spare = (threat.eps**power - threat.distance(x, z) ** power).clamp(min=0.0).view(-1, 1, 1)
        freed = size + _size(beside, bumps.alone, power)
        budget = (spare / self.image[0] + freed) ** (1 / power) * (1 if power == 2 else self.image[0])
        new = new * (budget / (_size(new, bumps.once, power) ** (1 / power) + 1e-12))
        delta = delta.scatter(2, bumps.other, 0.0).scatter(2, draw.pixels, new).view(x.shape)
        return threat.extend(x, delta) if threat.norm == "L2" else threat.project(x, x + delta)


@dataclass(frozen=True, eq=False)
class _Squares:
    """Squares of several sizes, anywhere: every result is (..., k), k the pixels of the largest one.

    Attributes:
        size: their heights and widths: (..., 2).
        steps: the numbers from 0 to below the largest height and the largest width.
    """

    size: Tensor
    steps: list[Tensor]

    def pixels(self, corner: Tensor, wide: int) -> Tensor:
        """Return the pixels of the squares with these corners, numbered as in a flat image of this width."""
        down, across = self._sides(corner)
        return (down[..., :, None] * wide + across[..., None, :]).flatten(-2)

    def once(self) -> Tensor:
        """Tell which of these are no repetitions."""
        down, across = (steps < self.size[..., axis, None] for axis, steps in enumerate(self.steps))
        return (down[..., :, None] & across[..., None, :]).flatten(-2)

    def shared(self, corner: Tensor, other: Tensor) -> Tensor:
        """Tell which pixels of the squares with the corners `other` lie in those with the corners `corner`."""
        down, across = (
            (side >= first[..., None]) & (side < (first + extent)[..., None])
            for side, first, extent in zip(self._sides(other), corner.unbind(-1), self.size.unbind(-1), strict=True)
        )
        return (down[..., :, None] & across[..., None, :]).flatten(-2)

    def _sides(self, corner: Tensor) -> list[Tensor]:
        """Return the rows and the columns."""
        return [
            corner[..., axis, None] + torch.minimum(steps, self.size[..., axis, None] - 1)
            for axis, steps in enumerate(self.steps)
        ]


def _size(delta: Tensor, mask: Tensor, power: int) -> Tensor:
    """Return the sum of squares (in L1 of sizes) over the pixels of the mask, for each channel: (p, channels, 1).

    In the order of the pixels: that of `sum` depends on how many pixels the largest square of the batch has, and with
    it the rounding would depend on the other examples.
    """
    sizes = delta.square() if power == 2 else delta.abs()
    return (sizes * mask).cumsum(2)[:, :, -1:]


def _as_image(shape: torch.Size) -> tuple[int, int, int]:
    """Return channels, height and width of an input; the axes before the last two are channels."""
    height, width = (1, 1, *shape)[-2:]
    return math.prod(shape[:-2]), height, width


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
