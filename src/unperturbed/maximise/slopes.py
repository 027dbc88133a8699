"""Substitutes for input gradients that are not finite, such as those of a square root at zero pixels."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch

from unperturbed.types import Inputs

REPLACED = "0 in the place of NaN, and the largest finite slope in the place of an infinite one"
"""The replacement by `usable`, in words."""


@dataclass
class Replaced:
    """Whether a gradient within the block was not finite somewhere."""

    any: bool = False


_noticing: ContextVar[tuple[Replaced, ...]] = ContextVar("noticing", default=())


@contextmanager
def noticing() -> Iterator[Replaced]:
    """Record whether `usable` replaces a gradient within this block."""
    replaced = Replaced()
    token = _noticing.set((*_noticing.get(), replaced))
    try:
        yield replaced
    finally:
        _noticing.reset(token)


def usable(gradient: Inputs) -> Inputs:
    """Return the gradient with 0 for NaN, and an example's largest finite slope, with its sign, for an infinite one.

    A root's slope is infinite at 0: its sign still says which way is up, and 0 there would hold a pixel that has met
    the box at its bound for the rest of the climb. A finite gradient is returned unchanged.
    """
    finite = gradient.isfinite()
    if bool(finite.all()):
        return gradient
    for replaced in _noticing.get():
        replaced.any = True
    peak = torch.where(finite, gradient.abs(), 0.0).flatten(1).amax(dim=1)
    peak = torch.where(peak > 0, peak, 1.0).view(-1, *[1] * (gradient.dim() - 1))
    bounded = torch.where(gradient.isinf(), torch.copysign(peak, gradient), gradient)
    return torch.where(gradient.isnan(), 0.0, bounded)


def tells_nothing(gradient: Inputs) -> torch.Tensor:
    """Tell per example whether all coordinates of its gradient are NaN (an infinite one has a sign): (n,)."""
    return gradient.isnan().flatten(1).all(dim=1)
