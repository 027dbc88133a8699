"""Substitutes for input gradients that are not finite, such as those of a square root at zero pixels."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch

from unperturbed.types import Inputs

REPLACED = "0 in the place of NaN, and the largest finite slope in the place of an infinite one"
"""The replacement by `usable`, in words."""


@dataclass
class Replaced:
    """Whether gradients within the block were not finite somewhere."""

    flags: list[torch.Tensor] = field(default_factory=list)
    """Of each gradient, on its device, so that the device is not waited for."""

    @property
    def any(self) -> bool:
        """Whether one of them was not finite."""
        return bool(self.flags) and bool(torch.stack([flag.cpu() for flag in self.flags]).any())


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
    whole = finite.all()
    if gradient.device.type == "cpu" and bool(whole):  # elsewhere, the question would wait for the device
        return gradient
    for replaced in _noticing.get():
        replaced.flags.append(~whole)
    peak = torch.where(finite, gradient.abs(), 0.0).flatten(1).amax(dim=1)
    peak = torch.where(peak > 0, peak, 1.0).view(-1, *[1] * (gradient.dim() - 1))
    bounded = torch.where(gradient.isinf(), torch.copysign(peak, gradient), gradient)
    return torch.where(gradient.isnan(), 0.0, bounded)


def tells_nothing(gradient: Inputs) -> torch.Tensor:
    """Tell per example whether all coordinates of its gradient are NaN (an infinite one has a sign): (n,)."""
    return gradient.isnan().flatten(1).all(dim=1)
