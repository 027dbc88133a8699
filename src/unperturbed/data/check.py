"""Checks of all examples against labels and bounds, and the mean and spread of the inputs."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from unperturbed.data.split import Split
from unperturbed.errors import InputError
from unperturbed.types import Bounds, Inputs, Rows

FAR = 100.0
"""Ratio of the widest feature to the narrowest above which one eps cannot suit both."""
_BLOCK = 1024
_MOST_VALUES = 2**24
"""The number of values from which the ranges of features are computed."""
_SLACK = 1e-6


def check(split: Split, bounds: Bounds, classes: int) -> None:
    """Raise InputError unless every label is one of `classes`, and every input is finite and within the bounds.

    The bounds have a slack of 1e-6 (relative, where they exceed 1). All inputs are read, in blocks, except 8-bit
    images, which are finite and within [0, 1] by construction; damaged images are found if memory holds all.
    """
    _check_labels(split, classes)
    split.read(torch.arange(len(split)))
    limits = _limits(bounds, split.shape)
    if split.eight_bit and bool((limits[0] <= 0).all() and (limits[1] >= 1).all()):
        return
    _check_finite(split)
    _check_within(split, *limits)


def repeated(split: Split) -> int:
    """Return the number of examples with the inputs of an earlier example; 0 if the inputs are not in memory."""
    if not split.in_memory:
        return 0
    distinct = {hash(row.tobytes()) for _, x in _blocks(split) for row in x.flatten(1).numpy()}
    return len(split) - len(distinct)


def mean_std(split: Split, limit: int = 10_000) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation of the inputs, for the normalisation inside models.

    Per channel for images (examples of rank 3), per feature for vectors (rank 1), one number for other shapes; over at
    most `limit` examples, evenly spaced in file order. A channel or feature that varies by less than 1e-6 of its size
    counts as constant and gets a standard deviation of 1, so that normalising never magnifies rounding.
    """
    used = min(limit, len(split))
    sums = squares = torch.zeros((), dtype=torch.float64)
    values = 0
    for ids in torch.split(torch.arange(used) * len(split) // used, _BLOCK):
        x = _by_channel(split.inputs(ids).double())
        sums, squares, values = sums + x.sum(1), squares + x.square().sum(1), values + x.shape[1]
    mean = sums / values
    std = (squares / values - mean.square()).clamp(min=0).sqrt()
    std = torch.where(std > 1e-6 * (squares / values).sqrt(), std, 1.0)
    return tuple(mean.tolist()), tuple(std.tolist())


@dataclass(frozen=True)
class FeatureRange:
    """The lowest and the highest value of a feature, and its index, from 0."""

    index: int
    low: float
    high: float

    @property
    def width(self) -> float:
        """The range of the values."""
        return self.high - self.low


def uneven_features(split: Split) -> tuple[FeatureRange, FeatureRange] | None:
    """Return the narrowest and the widest feature of vectors, if the ratio of their ranges is `FAR` or more.

    None if it is smaller, and for images. Features that are constant except for 10% of the examples do not count, such
    as the pixels at the margin of images. Over at most 10,000 examples, evenly spaced.
    """
    if len(split.shape) > 2 or split.eight_bit:
        return None
    used = max(2, min(len(split), 10_000, _MOST_VALUES // max(1, math.prod(split.shape))))
    ids = torch.arange(used) * len(split) // used
    values = torch.cat([split.inputs(block).flatten(1).double() for block in torch.split(ids, _BLOCK)]).sort(0).values
    width = values[-1] - values[0]
    varying = (values[used // 10] < values[used - 1 - used // 10]).nonzero().flatten()
    if len(varying) == 0:
        return None
    narrow, wide = (int(varying[column]) for column in (width[varying].argmin(), width[varying].argmax()))
    if width[wide] < FAR * width[narrow]:
        return None
    first, second = (FeatureRange(k, float(values[0, k]), float(values[-1, k])) for k in (narrow, wide))
    return first, second


def _check_labels(split: Split, classes: int) -> None:
    labels = split.labels
    if labels.dtype != torch.int64:
        raise InputError(f"The labels are {labels.dtype}, not integers: convert them to int64.")
    wrong = ((labels < 0) | (labels >= classes)).nonzero().flatten()
    if len(wrong):
        raise InputError(
            f"Labels range from {int(labels.min())} to {int(labels.max())}, but with {classes} classes they must be "
            f"0 to {classes - 1} ({len(wrong)} are not; {_first(wrong)}): number the classes from 0."
        )


def _check_finite(split: Split) -> None:
    bad = [ids[~x.flatten(1).isfinite().all(1)] for ids, x in _blocks(split)]
    wrong = torch.cat(bad)
    if len(wrong):
        raise InputError(
            f"{len(wrong)} of {len(split)} inputs hold NaN or infinite values ({_first(wrong)}): "
            "remove these examples, or fill in the missing values."
        )


def _check_within(split: Split, low: Tensor, high: Tensor) -> None:
    least, greatest, pixels, bad = float("inf"), float("-inf"), True, []
    for ids, x in _blocks(split):
        pixels = pixels and bool((x == x.round()).all())
        outside = (x < low - _slack(low)) | (x > high + _slack(high))
        least, greatest = min(least, float(x.min())), max(greatest, float(x.max()))
        bad.append(ids[outside.flatten(1).any(1)])
    wrong = torch.cat(bad)
    if len(wrong):
        remedy = (
            "They look like pixels from 0 to 255: divide them by 255"
            if pixels and least >= 0 and 127 < greatest <= 255 and float(high.max()) == 1
            else "Normalisation belongs in the model, as its first layer: pass raw inputs"
        )
        raise InputError(
            f"Inputs range from {least:.4g} to {greatest:.4g}, outside the bounds {_range(low, high)} "
            f"({len(wrong)} of {len(split)} examples; {_first(wrong)}). {remedy}, or declare the bounds that they have."
        )


def _limits(bounds: Bounds, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return the bounds as tensors that broadcast to an example."""
    low, high = (torch.as_tensor(b, dtype=torch.float32).cpu() for b in bounds or (float("-inf"), float("inf")))
    for limit in (low, high):
        missing = len(shape) - limit.ndim
        if missing < 0 or any(b not in (1, e) for b, e in zip(limit.shape, shape[missing:], strict=True)):
            raise InputError(
                f"The bounds have shape {tuple(limit.shape)}, but an example has shape {shape}: give one number, "
                "or tensors of an example's shape (1 where they are the same along an axis)."
            )
    return low, high


def _slack(limit: Tensor) -> Tensor:
    return _SLACK * limit.abs().clamp(min=1) if bool(limit.isfinite().all()) else torch.zeros(())


def _range(low: Tensor, high: Tensor) -> str:
    if low.ndim or high.ndim:
        return f"of their features (from {float(low.min()):.4g} up to {float(high.max()):.4g})"
    return f"{float(low):.4g} to {float(high):.4g}"


def _first(ids: Rows) -> str:
    return "first: example " + ", ".join(str(i) for i in ids[:5].tolist())


def _blocks(split: Split) -> Iterator[tuple[Rows, Inputs]]:
    return ((ids, split.inputs(ids)) for ids in torch.split(torch.arange(len(split)), _BLOCK))


def _by_channel(x: Tensor) -> Tensor:
    """Return (channels or features or 1, values)."""
    if x.ndim == 4:
        return x.transpose(0, 1).flatten(1)
    return x.T if x.ndim == 2 else x.reshape(1, -1)
