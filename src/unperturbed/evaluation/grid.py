"""The grid of 8-bit images k/255 inside a threat set, in integers.

Distances are counted in levels, steps of 1/255: an original is u/255, a rounded example k/255, and k lies in the ball
where max |k - u|, sum |k - u| or sum (k - u)^2 is at most a whole number.
"""

from fractions import Fraction
from math import floor

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from unperturbed.data.split import Split
from unperturbed.errors import InputError
from unperturbed.threat import Threat
from unperturbed.types import Inputs

Levels = Int64[Tensor, "n ..."]
_SAME = 6e-8
"""An input this close to k/255 equals k/255 up to one float32 rounding."""
_REMEDY = "--quantize writes 8-bit images: give data of 8-bit images (PNG files, or uint8 arrays), or leave it out."


def budget(threat: Threat) -> int:
    """Return the upper bound on max |k - u| (Linf), sum |k - u| (L1) or sum (k - u)^2 (L2).

    It is floor(255 eps), for L2 floor((255 eps)^2), in exact arithmetic. An eps that is the float nearest to m/255
    counts as m/255.
    """
    threat.refuse_shares("Rounding to 8-bit images")
    rounded = round(threat.eps * 255)
    levels = Fraction(rounded) if rounded / 255 == threat.eps else Fraction(threat.eps) * 255
    return floor(levels**2 if threat.norm == "L2" else levels)


def grid_limits(threat: Threat, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Return the lowest and the highest level k, of 0 to 255, whose k/255 in float32 lies in the box."""
    low, high = (limit.contiguous() for limit in threat.limits(torch.empty(1, *shape)))
    grid = as_inputs(torch.arange(256), low)
    return torch.searchsorted(grid, low), torch.searchsorted(grid, high, right=True) - 1


def levels_of(x: Inputs) -> Levels:
    """Return the levels u of inputs u/255; raises `InputError` for other inputs."""
    levels = (x * 255).round()
    off = ~((x - as_inputs(levels, x)).abs() <= _SAME) | (levels < 0) | (levels > 255)
    if off.any():
        raise InputError(f"The inputs are no 8-bit images: {float(x[off][0]):.9g} is no k/255. {_REMEDY}")
    return levels.long()


def as_inputs(levels: Tensor, like: Tensor) -> Inputs:
    """Return k/255 on the device of `like`, divided in float32 on the CPU like 8-bit data (GPUs round differently)."""
    return levels.cpu().to(torch.float32).div(255).to(like)


def spent(levels: Levels, k: Levels, threat: Threat) -> Int64[Tensor, " n"]:
    """Return max |k - u|, sum |k - u| or sum (k - u)^2, which `budget` limits."""
    size = (k - levels).abs().flatten(1)
    return size.amax(1) if threat.norm == "Linf" else size.pow(2 if threat.norm == "L2" else 1).sum(1)


def nearest(levels: Levels, target: Float64[Tensor, "n ..."], threat: Threat) -> Levels:
    """Return the grid point of S(u/255) nearest to `target` (in levels, not rounded), in the Euclidean norm.

    Linf: every pixel alone. L1 and L2: every pixel is rounded; if the sum then exceeds the budget, pixels move a level
    back towards u, in the order of added squared distance per freed unit of the budget. For L1 that is the nearest
    point; for L2, where the last pixel may free more than necessary, almost.
    """
    low, high = grid_limits(threat, levels.shape[1:])
    limit = budget(threat)
    k = torch.maximum(torch.minimum(target.round().long(), high), low)
    if threat.norm == "Linf":
        return torch.maximum(torch.minimum(k, levels + limit), levels - limit)
    power = 2 if threat.norm == "L2" else 1
    size, goal = (k - levels).abs().flatten(1), (target - levels).abs().flatten(1)
    while ((over := size.pow(power).sum(1, keepdim=True) - limit) > 0).any():
        freed = size.pow(power) - (size - 1).clamp(min=0).pow(power)
        price = torch.where(freed > 0, (1 - 2 * (size - goal)) / freed, torch.inf)
        order = price.argsort(dim=1, stable=True)
        freed = freed.gather(1, order)
        enough = freed.cumsum(1) - freed >= over
        size = size - torch.zeros_like(size).scatter(1, order, (~enough & (freed > 0)).long())
    return levels + (k - levels).sign() * size.view(k.shape)


def check_eight_bit(split: Split) -> None:
    """Raise `InputError`, with the remedy, unless the examples are 8-bit images that PNG can store."""
    if len(split.shape) != 3 or split.shape[0] not in (1, 3):
        raise InputError(f"The inputs have shape {split.shape}, not one or three channels of pixels. {_REMEDY}")
    if not split.eight_bit:
        for ids in torch.split(torch.arange(len(split)), 1024):
            levels_of(split.inputs(ids))
