"""The share of eps by which each feature of a table may change."""

import math
from numbers import Real

import torch
from torch import Tensor

from unperturbed.errors import InputError
from unperturbed.types import Norm


def checked_shares(shares: object, norm: Norm) -> tuple[float, ...] | None:
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
