"""The share of eps by which each feature of a table may change."""

import math
from numbers import Real

import torch
from torch import Tensor

from unperturbed.errors import InputError
from unperturbed.threat.geometry import at_least_something, length, peak
from unperturbed.types import Inputs, Norm, PerExample

Shares = tuple[float, ...] | None
"""A share of eps for each feature, 0 for one that never changes; None: all change by eps."""


def checked_shares(shares: object, norm: Norm) -> Shares:
    """Return shares as floats, and None for shares of 1 alone, which change nothing.

    Raises:
        InputError: where they are no list of numbers of 0 or more, one of them above 0; and, in a norm other than Linf,
            where one is neither 0 nor 1, or the norm is Patch.
    """
    if shares is None:
        return None
    values = shares.tolist() if hasattr(shares, "tolist") else shares
    if not isinstance(values, tuple | list) or not all(
        isinstance(share, Real) and not isinstance(share, bool) and 0 <= float(share) < math.inf for share in values
    ):
        raise InputError(f"shares are {shares!r:.80}: give a number of 0 or more for each feature, such as (1, 0, 50)")
    if norm == "Patch":
        raise InputError("shares are for the features of a table, and a patch is of an image: leave them out")
    numbers = tuple(map(float, values))
    if not any(numbers):
        raise InputError(f"shares are {shares!r:.80}, so that nothing may change: give one above 0, or an eps of 0")
    if norm != "Linf" and not {*numbers} <= {0.0, 1.0}:
        other = next(share for share in numbers if share not in (0.0, 1.0))
        raise InputError(f"a share is {other:g}, but in {norm} a feature changes (1) or never does (0): use Linf")
    return None if {*numbers} == {1.0} else numbers


def share_of(shares: tuple[float, ...], like: Tensor) -> Tensor:
    """Return the shares on the device and in the dtype of the inputs `like`; raises InputError where they do not fit.

    Shape (features,), which broadcasts to (n, features) and, as in random searches, to (n, 1, features).
    """
    if like.shape[1:].numel() != len(shares) or like.shape[-1] != len(shares):
        raise InputError(
            f"the threat has shares for {len(shares)} features, and an example has the shape {tuple(like.shape[1:])}: "
            "give one for each feature of a table"
        )
    return torch.tensor(shares, dtype=like.dtype, device=like.device)


def zero_or_one(shares: Shares) -> Shares:
    """Return shares of 0 for the features that never change, and 1 for the others."""
    return None if shares is None else tuple(float(share > 0) for share in shares)


def times_shares(t: Tensor, shares: Shares) -> Tensor:
    """Return t times the shares."""
    return t if shares is None else t * share_of(shares, t)


def over_shares(t: Tensor, shares: Shares) -> Tensor:
    """Return t over the shares, and 0 for features that never change."""
    if shares is None:
        return t
    share = share_of(shares, t)
    return torch.where(share > 0, t / at_least_something(share), 0.0)


def length_over_shares(norm: Norm, delta: Tensor, shares: Shares) -> Tensor:
    """Return the norm of the changes over their shares; infinite where a feature has changed that never changes."""
    if shares is None:
        return length(norm, delta)
    share = share_of(shares, delta)
    none = torch.where(delta == 0, 0.0, torch.inf)
    return length(norm, torch.where(share > 0, delta / at_least_something(share), none))


def changing(shares: Shares, like: Tensor) -> Tensor | None:
    """Return 1 for the features that may change and 0 for the others; None where all may."""
    return None if shares is None else share_of(shares, like).gt(0).to(like.dtype)


def count_changing(shares: Shares, like: Tensor) -> int:
    """Return how many features of an example may change."""
    return like.shape[1:].numel() if shares is None else sum(share > 0 for share in shares)


def within_shares(norm: Norm, eps: float, shares: tuple[float, ...], x: Inputs, z: Inputs, slack: PerExample) -> Tensor:
    """Tell per example whether z is within eps of x, up to `slack`, with no change of a feature that never changes.

    In Linf each feature has its own slack, that of `Threat.contains` for it alone, so that a large one widens no other.
    """
    share, moved = share_of(shares, x), (z - x).abs()
    still = ((share > 0) | (moved == 0)).all(1)
    if norm == "Linf":
        rounding = 1e-7 * torch.maximum(x.abs(), z.abs()).clamp(min=1.0)
        return still & (moved <= eps * share * (1 + 1e-6) + rounding).all(1)
    return still & (length(norm, moved).flatten() <= eps + slack)


def rounding_over_shares(x: Inputs, shares: Shares) -> PerExample:
    """Return the rounding error of the distance of x + delta in float32, per example: 1e-7 · max(1, ‖x‖∞).

    With shares the largest 1e-7 · max(1, |x_i|) / share_i of the features that may change.
    """
    if shares is None:
        return 1e-7 * peak(x).clamp(min=1.0).flatten()
    return 1e-7 * peak(over_shares(x.abs().clamp(min=1.0), shares)).flatten()
