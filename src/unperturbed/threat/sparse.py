"""The geometry of sets where only few features of an example differ from x: any of them, or those of one square."""

import torch
from torch import Tensor

from unperturbed.noise import Noise
from unperturbed.types import Norm


def largest(values: Tensor, count: int) -> Tensor:
    """Return a mask of the `count` largest values of each example, the first of equal ones: bool, (n, ...)."""
    flat = values.reshape(len(values), values.shape[1:].numel())
    order = flat.sort(dim=1, descending=True, stable=True).indices[:, :count]
    return torch.zeros_like(flat, dtype=torch.bool).scatter_(1, order, True).view(values.shape)


def as_images(values: Tensor) -> Tensor:
    """Return examples as images (n, channels, height, width); the axes before the last two are channels."""
    height, width = (1, 1, *values.shape[1:])[-2:]
    return values.reshape(len(values), values.shape[1:].numel() // max(height * width, 1), height, width)


def window_sums(values: Tensor, side: int) -> Tensor:
    """Return the sums of nonnegative values over all squares of this side, channels included: (n, down, across).

    The side is cut to height and width of the image.
    """
    pixels = as_images(values).sum(1)
    tall, wide = pixels.shape[1:]
    tall, wide = (max(min(side, extent), 1) for extent in (tall, wide))
    return pixels.unfold(1, tall, 1).unfold(2, wide, 1).sum((3, 4))


def squares(corner: Tensor, side: int, like: Tensor) -> Tensor:
    """Return masks of squares with these upper left corners, (n, 2), in the shape of the examples `like`: bool."""
    image = as_images(like)
    inside = [
        (place >= corner[:, axis, None]) & (place < corner[:, axis, None] + side)
        for axis, place in enumerate(torch.arange(extent, device=like.device) for extent in image.shape[2:])
    ]
    mask: Tensor = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return mask.expand(image.shape).reshape(like.shape)


def best_square(values: Tensor, side: int) -> Tensor:
    """Return a mask of the square with the largest sum of nonnegative values, the first of equal ones: bool."""
    sums = window_sums(values, side)
    place, across = sums.flatten(1).argmax(1), sums.shape[2]
    return squares(torch.stack([place // across, place % across], dim=1), side, values)


def best_support(norm: Norm, values: Tensor, size: int) -> Tensor:
    """Return the features that may change together, of the largest sum of values: `size` of them, or a square."""
    return best_square(values, size) if norm == "Patch" and size else largest(values, size)


def nearest_sparse(norm: Norm, x: Tensor, z: Tensor, boxed: Tensor, size: int) -> Tensor:
    """Return the nearest point to z of the box that differs from x in few features; `boxed` is z cut to the box.

    A feature that may change costs (z - boxed)^2 and one that may not (z - x)^2, apart from all others. So those with
    the largest differences (z - x)^2 - (z - boxed)^2 = (boxed - x) ((z - x) + (z - boxed)) change.
    """
    move = boxed - x
    saved = torch.where(move == 0, 0.0, move * ((z - x) + (z - boxed)))
    return torch.where(best_support(norm, saved, size), boxed, x)


def random_support(norm: Norm, noise: Noise, x: Tensor, size: int, free: Tensor | None = None) -> Tensor:
    """Return a mask of features that may change together, each set of them as likely as any other.

    With `free`, in L0, of `size` among the features where it is 1.
    """
    if norm == "L0" or not size:
        ranks = noise.uniform(x.shape[1:], x.dtype)
        return largest(ranks if free is None else torch.where(free > 0, ranks, -1.0), size)
    places = torch.tensor([max(extent - size, 0) + 1 for extent in as_images(x).shape[2:]], device=x.device)
    corner = (noise.uniform((2,), x.dtype) * places).long().minimum(places - 1)
    return squares(corner, size, x)


def square_side(delta: Tensor) -> Tensor:
    """Return the side of the smallest square that holds all entries that are not 0, NaN where one is: (n, 1, ...)."""
    changed = (as_images(delta) != 0).any(1)
    extents = []
    for axis in (1, 2):
        lines = changed.any(axis).to(delta.dtype)  # of the other axis
        place = torch.arange(1, lines.shape[1] + 1, device=delta.device, dtype=delta.dtype)
        last = (lines * place).amax(1)
        first = torch.where(lines > 0, place, torch.inf).amin(1)
        extents.append(torch.where(last > 0, last - first + 1, 0.0))
    side = torch.maximum(*extents)
    side = torch.where(delta.flatten(1).isnan().any(1), torch.nan, side)
    return side.view(-1, *[1] * (delta.dim() - 1))
