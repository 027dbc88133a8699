"""The box of the inputs: its bounds, checked, and as tensors that fit the inputs."""

from numbers import Real

import numpy as np
import torch
from torch import Tensor

from unperturbed.errors import InputError
from unperturbed.types import Bounds


def checked_bounds(bounds: object) -> Bounds:
    """Return bounds as two floats, two tensors or None; raises InputError where they are none, or contain nothing."""
    if bounds is None:
        return None
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise InputError(f"bounds are {bounds!r}: give (low, high), as two numbers or two tensors, or None")
    if all(isinstance(bound, Real) and not isinstance(bound, bool) for bound in bounds):
        try:
            low, high = float(bounds[0]), float(bounds[1])
        except OverflowError as error:
            raise InputError(f"bounds are {bounds!r:.80}: no float is that large") from error
        if not low <= high:
            raise InputError(f"bounds are ({low:g}, {high:g}): the lower one comes first and neither is NaN")
        return low, high
    if not all(isinstance(bound, Real | Tensor | np.ndarray) and not isinstance(bound, bool) for bound in bounds):
        raise InputError(f"bounds are {bounds!r:.80}: give (low, high), as two numbers or two tensors, or None")
    lows, highs = _as_bound(bounds[0]), _as_bound(bounds[1])
    try:
        wrong = int((~(lows <= highs)).sum())
    except RuntimeError as error:
        shapes = f"{tuple(lows.shape)} and {tuple(highs.shape)}"
        raise InputError(f"bounds have the shapes {shapes}: give both the shape of an example") from error
    if wrong:
        raise InputError(f"bounds have low > high or NaN in {wrong} places: give (low, high) with low <= high in each")
    return lows, highs


def _as_bound(bound: object) -> Tensor:
    """Return a bound as a tensor of real numbers; raises InputError where it is none."""
    try:
        tensor = torch.as_tensor(bound)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"bounds hold {bound!r:.80}: give numbers, or tensors or arrays of numbers") from error
    if tensor.is_complex() or tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type == "meta":
        raise InputError(f"bounds hold a tensor of {tensor.dtype}: give dense tensors of real numbers")
    return tensor.detach()


def limit(bound: float | Tensor | np.ndarray, like: Tensor) -> Tensor:
    """Return a bound on the device and in the dtype of the inputs `like`; raises InputError where it does not fit."""
    if isinstance(bound, float):
        return torch.full((), bound, dtype=like.dtype, device=like.device)
    bound, example = torch.as_tensor(bound), like.shape[1:]
    missing = len(example) - bound.dim()
    if missing < 0 or any(b not in (1, e) for b, e in zip(bound.shape, example[missing:], strict=True)):
        raise InputError(
            f"bounds of shape {tuple(bound.shape)} do not fit examples of shape {tuple(example)}: give one number, "
            "or tensors of an example's shape"
        )
    return bound.to(like)
