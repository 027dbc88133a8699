"""The geometry of the L0 ball: at most so many features of an example differ from x."""

import torch
from torch import Tensor

from unperturbed.noise import Noise


def largest(values: Tensor, count: int) -> Tensor:
    """Return a mask of the `count` largest values of each example, the first of equal ones: bool, (n, ...)."""
    flat = values.reshape(len(values), values.shape[1:].numel())
    order = flat.sort(dim=1, descending=True, stable=True).indices[:, :count]
    return torch.zeros_like(flat, dtype=torch.bool).scatter_(1, order, True).view(values.shape)


def nearest_sparse(x: Tensor, z: Tensor, boxed: Tensor, count: int) -> Tensor:
    """Return the nearest point to z of the box that differs from x in at most `count` features; `boxed` is z cut to it.

    A feature that may change costs (z - boxed)^2 and one that may not (z - x)^2, apart from all others. So those with
    the largest differences (z - x)^2 - (z - boxed)^2 = (boxed - x) ((z - x) + (z - boxed)) change.
    """
    move = boxed - x
    saved = torch.where(move == 0, 0.0, move * ((z - x) + (z - boxed)))
    return torch.where(largest(saved, count), boxed, x)


def random_features(noise: Noise, x: Tensor, count: int) -> Tensor:
    """Return a mask of `count` features of each example, each set of so many as likely as any other."""
    return largest(noise.uniform(x.shape[1:], x.dtype), count)
